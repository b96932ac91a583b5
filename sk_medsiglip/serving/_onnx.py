"""``to_onnx``: a fitted pipeline as one ONNX file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sk_medsiglip._files import new_file
from sk_medsiglip._version import __version__
from sk_medsiglip.embedding import MedSigLIPPatchEmbedder
from sk_medsiglip.encoder import export_image_tower, is_demonstration
from sk_medsiglip.evaluation import OperatingPointClassifier
from sk_medsiglip.serving._onnx_int8 import (
    check_quantize,
    print_cost,
    quantize_weights,
)
from sk_medsiglip.serving._onnx_steps import Graph, add_classifier
from sk_medsiglip.serving._parts import iter_layers, split_classifier
from sk_medsiglip.zero_shot import find_answers

#: Version of the operators: Softmax over one axis, ReduceL2 with axes as an input.
_OPSET = 18
#: Version of the file format that runtimes of 2024 and later read.
_IR_VERSION = 10
_OUTPUT = "probabilities"

_NOTICE = """\
{name} holds weights of MedSigLIP, or of a model tuned from it. They were changed: the
image tower was converted to ONNX and joined with a classifier. The file is not one that
Google published.

HAI-DEF is provided under and subject to the Health AI Developer Foundations Terms of
Use found at https://developers.google.com/health-ai-developer-foundations/terms

Whoever distributes the file, or makes it available for others to query, passes these
terms on, with the prohibited-use policy that they name, and keeps this notice beside
the file.
"""


def to_onnx(
    pipeline: Any,
    path: str | os.PathLike[str],
    *,
    include_encoder: bool = False,
    quantize: str | None = None,
    X: Any = None,
    y: Any = None,
) -> Path:
    """Write a fitted classifier as an ONNX file.

    Parameters
    ----------
    pipeline : estimator
        Fitted classifier of images, which begins with a
        :class:`~sk_medsiglip.MedSigLIPEmbedder`; without ``include_encoder`` also a
        fitted head or pipeline of embeddings. Heads: all of ``sk_medsiglip.heads``
        that classify rows, :class:`~sk_medsiglip.ZeroShotClassifier`, and
        scikit-learn's ``LogisticRegression``; before them scalers, ``Normalizer`` and
        ``PCA``; around them searches, thresholds and conformal sets.
    path : str or path-like
        File to write; an existing file is replaced.
    include_encoder : bool, default=False
        Whether the file holds the image tower, too. Such a file takes uint8 images at
        the model's size and has the size of the tower in float32: 13 MB for the
        demonstration, about 1.7 GB for MedSigLIP. Beside it, a notice of the terms of
        MedSigLIP's weights is written.
    quantize : "int8" or None, default=None
        Numeric type of the weights of the image tower. The file with "int8" is about a
        quarter as large, and its probabilities differ: how much is printed for ``X``.
    X : array-like of shape (n_samples,), default=None
        Images as for ``pipeline.predict_proba``, needed with ``quantize`` and only used
        there. Take images of the place where the file will be used.
    y : array-like of shape (n_samples,) or (n_samples, n_findings), default=None
        Labels of ``X``, as for ``fit``. With them, areas under the ROC curve are
        printed, too.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TypeError
        If a step cannot be written; names those that can.
    ValueError
        If ``quantize`` is unknown, or passed without ``include_encoder`` or ``X``.
    MissingDependencyError
        If the extra ``onnx`` is not installed, or with ``quantize`` onnxruntime.

    Notes
    -----
    The input is ``embeddings`` (n, width), float32, or ``images`` (n, size, size, 3),
    uint8: RGB as :func:`sk_medsiglip.images.read_image` returns it, resized without
    antialiasing as the embedder does. The output ``probabilities`` is float32, shaped
    as ``predict_proba``. Decisions and conformal sets are not in the file. Its metadata
    name classes or findings (``names``, JSON), the thresholds of an
    :class:`~sk_medsiglip.evaluation.OperatingPointClassifier` (``thresholds``, JSON),
    the model, its revision and the version of this package.

    Heads are computed in float64 and agree with Python to 1e-5; with the image tower,
    probabilities agree to 1e-4. Weights in int8 are those of onnxruntime's dynamic
    quantization; activations share a scale in each run, so there results depend on the
    other images of a batch, and the cost is measured one image at a time. The file of a
    :class:`~sk_medsiglip.heads.TipAdapterClassifier` holds the embeddings of its
    training images.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.serving import to_onnx
    >>> phantoms = make_chest_phantoms(60, random_state=0)
    >>> images, y = list(phantoms.images), phantoms.target[:, 1]
    >>> pipe = make_pipeline(MedSigLIPEmbedder("demo"), LinearProbe()).fit(images, y)
    >>> to_onnx(pipe, "head.onnx")  # doctest: +SKIP
    """
    path = Path(path)
    if quantize is not None:
        check_quantize(quantize, include_encoder, X)
    try:
        embedder, classifier = split_classifier(pipeline)
    except TypeError:
        if include_encoder:
            raise
        embedder, classifier = None, pipeline
    if isinstance(embedder, MedSigLIPPatchEmbedder):
        raise TypeError(
            "to_onnx writes classifiers of whole images, and this one begins with a "
            "MedSigLIPPatchEmbedder. Deploy it as a .skops file."
        )
    graph = Graph()
    types = graph.onnx.TensorProto
    if include_encoder and embedder is not None:
        model = export_image_tower(embedder.model, embedder.revision_, row_name="rows")
        if quantize is not None:
            model = quantize_weights(model)
        rows = graph.add("Cast", "rows", to=types.DOUBLE)
        if embedder.normalize:
            rows = graph.unit(rows)
    else:
        model = _empty_model(graph.onnx, _width(classifier))
        rows = graph.add("Cast", "embeddings", to=types.DOUBLE)
    shares = add_classifier(graph, classifier, rows)
    make_node, describe = (
        graph.onnx.helper.make_node,
        graph.onnx.helper.make_tensor_value_info,
    )
    graph.nodes.append(make_node("Cast", [shares], [_OUTPUT], to=types.FLOAT))
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.constants)
    del model.graph.output[:]
    names = find_answers(classifier, None)
    shape = ["n", len(names.classes)]
    model.graph.output.append(describe(_OUTPUT, types.FLOAT, shape))
    facts = _facts(embedder, names) | _thresholds(pipeline)
    graph.onnx.helper.set_model_props(model, facts)
    if include_encoder and embedder and not is_demonstration(embedder.model):
        # First, so that the weights are never without it.
        with new_file(path.with_name(f"{path.name}.NOTICE.txt")) as draft:
            draft.write_text(_NOTICE.format(name=path.name), encoding="utf-8")
    with new_file(path) as draft:
        draft.write_bytes(model.SerializeToString())
        graph.onnx.checker.check_model(os.fspath(draft))
        if quantize is not None and embedder is not None:
            print_cost(draft, pipeline, embedder, X, y)
    return path


def _width(classifier: Any) -> int:
    """Return the number of columns that a fitted classifier takes."""
    layers = [layer for layer, _ in iter_layers(classifier)]
    return next(one.n_features_in_ for one in layers if hasattr(one, "n_features_in_"))


def _empty_model(onnx: Any, width: int) -> Any:
    """Return a model that takes embeddings and has no node yet."""
    helper = onnx.helper
    rows = helper.make_tensor_value_info(
        "embeddings", onnx.TensorProto.FLOAT, ["n", width]
    )
    graph = helper.make_graph([], "sk_medsiglip", [rows], [])
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)


def _facts(embedder: Any, answers: Any) -> dict[str, str]:
    """Return what a reader of the file needs to know."""
    several = answers.several
    names = answers.finding_names if several else answers.classes.tolist()
    facts = {
        "names": json.dumps([str(name) for name in names]),
        "exclusive": json.dumps(not several),
    }
    if embedder is not None:
        model = os.fspath(embedder.model)
        facts["model"] = Path(model).name if os.path.isabs(model) else model
        facts["revision"] = embedder.revision_
    return facts | {"sk_medsiglip": __version__}


def _thresholds(pipeline: Any) -> dict[str, str]:
    """Return the lowest probabilities at which findings are predicted, if chosen."""
    for layer, _ in iter_layers(pipeline):
        if isinstance(layer, OperatingPointClassifier):
            return {"thresholds": json.dumps(layer.thresholds_.tolist())}
    return {}
