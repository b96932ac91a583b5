"""A saved classifier in other homes: behind HTTP, in ONNX, in MLflow.

::

    _serve.py            serve: the service, from a terminal or a container
    _app.py              make_app: its routes, limits and metrics
    _body.py             the images of a request; _openapi.py, its description
    _decoding.py         images to pixels, in processes that may die
    _queue.py            requests that wait, answered by one pass of the model
    _model.py            a classifier's answers as JSON
    _parts.py            a classifier taken apart: embedder, gate, sets

    _onnx.py             to_onnx: a pipeline as an ONNX file
    _onnx_steps.py       the graph of each step
    _onnx_int8.py        its image tower in int8, and what that costs
    _trusted.py          trusted_types: for skops and MLflow
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.serving._app import make_app
from sk_medsiglip.serving._onnx import to_onnx
from sk_medsiglip.serving._serve import serve
from sk_medsiglip.serving._trusted import trusted_types

__all__ = ["make_app", "serve", "to_onnx", "trusted_types"]

name_by_room(globals())
