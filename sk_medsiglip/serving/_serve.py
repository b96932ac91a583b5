"""``serve``: run a saved classifier as a service."""

from __future__ import annotations

import logging
import socket
import sys
import warnings
from typing import TYPE_CHECKING, Any

from sk_medsiglip._optional import import_optional
from sk_medsiglip._web import LOOPBACK, TERMS, bind
from sk_medsiglip.serving._app import make_app
from sk_medsiglip.serving._openapi import NOT_CLINICAL

if TYPE_CHECKING:
    from types import FrameType


def serve(
    classifier: Any, *, host: str = "127.0.0.1", port: int = 8000, **options: Any
) -> None:
    """Serve a fitted classifier of images over HTTP, until Ctrl-C or SIGTERM.

    ``POST /predict`` takes a DICOM, PNG or JPEG file as its body, a form with several
    files, or JSON ``{"images": [base64, ...]}``. It answers with probabilities by name,
    the decision at the classifier's operating point, its conformal set and novelty
    where it has these, and the model. ``/health``, ``/info``, ``/metrics`` (Prometheus)
    and ``/docs`` are there, too. When the service is ready, its address is written to
    stderr.

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
    AddressError
        If the address is not one of this machine, or another program uses the port.
    ModelAccessError, CheckpointError
        If the weights are not available, or not those of ``fit``.
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
    and SIGTERM answer what is in hand first, for up to a minute; a second signal ends
    the service without that.
    """
    uvicorn = import_optional("uvicorn", extra="serve", purpose="Serving")
    if host not in LOOPBACK:
        warnings.warn(TERMS, UserWarning, stacklevel=2)
        options.setdefault("hosts", None)
    with bind(host, port) as listener:
        app = make_app(classifier, **options)
        model = app.state.model
        model.warm_up()  # here rather than in the server, whose error is a traceback
        listener.listen()
        _announce(model.info, listener)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=60,
        )
        server = uvicorn.Server(config)
        finish = server.handle_exit

        def handle_exit(number: int, frame: FrameType | None) -> None:
            if server.should_exit:  # the second signal
                server.force_exit = True
                # It would log a traceback for each request that is cut off.
                logging.getLogger("uvicorn.error").disabled = True
                if decoders := getattr(app.state, "decoders", None):
                    decoders.close()
            finish(number, frame)

        server.handle_exit = handle_exit
        try:
            server.run([listener])
        except KeyboardInterrupt:  # raised again by uvicorn when it has ended
            pass


def _announce(info: dict[str, Any], listener: socket.socket) -> None:
    """Write the address to stderr, and the notice of the demonstration."""
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    lines = [f"Serving {info['model']} on {address}/docs; stop with Ctrl-C."]
    if info["demonstration"]:
        lines.append(
            "The model is the small demonstration checkpoint. It is not MedSigLIP, and "
            "its answers say nothing about patients."
        )
    lines.append(NOT_CLINICAL)
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
