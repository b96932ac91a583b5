"""``serve``: run a saved classifier as a service."""

from __future__ import annotations

import warnings
from typing import Any

from sk_medsiglip._optional import import_optional
from sk_medsiglip._web import LOOPBACK, TERMS
from sk_medsiglip.serving._app import make_app


def serve(
    classifier: Any, *, host: str = "127.0.0.1", port: int = 8000, **options: Any
) -> None:
    """Serve a fitted classifier of images over HTTP, until Ctrl-C or SIGTERM.

    ``POST /predict`` takes a DICOM, PNG or JPEG file as its body, a form with several
    files, or JSON ``{"images": [base64, ...]}``. It answers with probabilities by name,
    the decision at the classifier's operating point, its conformal set and novelty
    where it has these, and the model. ``/health``, ``/info``, ``/metrics`` (Prometheus)
    and ``/docs`` are there, too.

    Parameters
    ----------
    classifier : estimator
        Fitted pipeline that begins with a :class:`~sk_medsiglip.MedSigLIPEmbedder`, or
        a meta-estimator around one, such as
        :class:`~sk_medsiglip.ConformalZeroShot`. A
        :class:`~sk_medsiglip.audit.NoveltyGate` in it is asked, and lets all pass.
    host : str, default="127.0.0.1"
        Address to listen on. By default only programs on this machine can connect.
        ``"0.0.0.0"`` lets others in, who are not asked for a password: put a proxy
        before it that does, and that encrypts.
    port : int, default=8000
        Port to listen on; 0 takes a free one.
    **options : dict
        Options of :func:`make_app`.

    Raises
    ------
    TypeError
        If ``classifier`` does not begin with an embedder of images.
    MissingDependencyError
        If the extra ``serve`` is not installed.

    Warns
    -----
    UserWarning
        If ``host`` lets other machines in.

    Notes
    -----
    Images are decoded in processes of their own: one that crashes its decoder gets an
    error, and others are answered. Images that arrive during a pass of the model go
    through the next together. Nothing that passes through is stored or logged. Ctrl-C
    and SIGTERM answer what is in hand first.
    """
    uvicorn = import_optional("uvicorn", extra="serve", purpose="Serving")
    if host not in LOOPBACK:
        warnings.warn(TERMS, UserWarning, stacklevel=2)
        options.setdefault("hosts", None)
    app = make_app(classifier, **options)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=60,
    )
