"""``make_app``: a saved classifier behind HTTP.

On Starlette alone: FastAPI, which is built on it, brings pydantic and OpenTelemetry.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from joblib import cpu_count

from sk_medsiglip._optional import import_optional
from sk_medsiglip._page import render_page
from sk_medsiglip._web import LOOPBACK
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.serving._decoding import Decoders
from sk_medsiglip.serving._model import ServedModel
from sk_medsiglip.serving._openapi import describe_routes
from sk_medsiglip.serving._queue import BatchQueue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


#: Images that wait for the model at a time: 600 MiB at MedSigLIP's size.
_MAX_WAITING = 1024

_LOG = logging.getLogger("sk_medsiglip.serving")


def make_app(
    classifier: Any,
    *,
    max_batch: int = 32,
    max_body: int = 64 * 2**20,
    max_images: int = 256,
    n_decoders: int | None = None,
    decode_seconds: float = 30.0,
    body_seconds: float = 60.0,
    hosts: Sequence[str] | None = LOOPBACK,
    cache: Any = False,
    device: str | None = None,
) -> Starlette:
    """Return the ASGI application that :func:`serve` runs.

    Parameters
    ----------
    classifier : estimator
        Fitted pipeline from images to classes, or a meta-estimator around one.
    max_batch : int, default=32
        Number of images in one pass of the model. Requests that arrive during a pass
        are answered together by the next.
    max_body : int, default=64 MiB
        Largest body of a request, in bytes. All bodies at a time may have eight times
        as many; clients beyond that are told to come again (503).
    max_images : int, default=256
        Largest number of images in a request.
    n_decoders : int or None, default=None
        Number of processes that decode images; None is one a core.
    decode_seconds : float, default=30
        Time for one image, in seconds. A decoder that takes longer is killed.
    body_seconds : float, default=60
        Time for the body of a request to arrive, in seconds.
    hosts : sequence of str or None, default=LOOPBACK
        Names that the Host header may have; None allows every name.
    cache : bool, str, path-like or EmbeddingCache, default=False
        Store of embeddings. By default nothing that passes through is kept.
    device : str or None, default=None
        Device of the model. By default that of the embedder.

    Returns
    -------
    starlette.applications.Starlette
        With ``POST /predict``, ``GET /health``, ``/info``, ``/metrics``, ``/docs`` and
        ``/openapi.json``.

    Raises
    ------
    TypeError
        If ``classifier`` does not begin with an embedder of images.
    MissingDependencyError
        If the extra ``serve`` is not installed.
    """
    import_optional("starlette", extra="serve", purpose="Serving")
    import_optional("python_multipart", extra="serve", purpose="Serving")
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
    from starlette.routing import Route

    from sk_medsiglip.serving._body import BodyReader, busy

    metrics = _Metrics()
    model = ServedModel(classifier, cache=cache, device=device)
    reader = BodyReader(max_body, 8 * max_body, max_images, body_seconds)
    n_processes = n_decoders or cpu_count()
    about = {name: model.info[name] for name in ("model", "revision", "version")}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        state = app.state
        # Weights that are missing end the server here, not the first request.
        await asyncio.to_thread(model.warm_up)
        state.decoders = Decoders(model.prepare, n_processes, decode_seconds)
        state.threads = ThreadPoolExecutor(n_processes, "decode")
        state.queue = BatchQueue(
            model.answer,
            max_batch=max_batch,
            max_waiting=_MAX_WAITING,
            n_threads=model.n_threads,
            start_thread=model.start_thread,
            on_batch=metrics.batch.observe,
        )
        metrics.restarts.set_function(lambda: state.decoders.n_restarts)
        metrics.waiting.set_function(lambda: state.queue.n_waiting)
        try:
            yield
        finally:  # also where the server does not wait for the work in hand
            state.decoders.close()
            state.threads.shutdown(cancel_futures=True)
            await state.queue.close()

    async def answer(content: bytes, state: Any) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        try:
            pixels: NDArray[np.uint8] = await loop.run_in_executor(
                state.threads, state.decoders.decode, content
            )
        except ImageReadError as error:
            return {"error": str(error)}
        try:
            found: dict[str, Any] = await state.queue.ask(pixels)
        except asyncio.QueueFull:
            raise busy() from None
        return found

    async def predict(request: Request) -> Response:
        state = request.app.state
        async with reader.images_of(request) as images:
            found = await asyncio.gather(*(answer(one, state) for one in images))
        errors = [one["error"] for one in found if "error" in one]
        metrics.images.labels("unreadable").inc(len(errors))
        metrics.images.labels("answered").inc(len(found) - len(errors))
        if len(errors) == len(found):
            raise HTTPException(422, "; ".join(dict.fromkeys(errors)))
        return JSONResponse({"predictions": found, **about})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def info(request: Request) -> Response:
        return JSONResponse(model.info)

    async def show_metrics(request: Request) -> Response:
        return PlainTextResponse(metrics.as_text())

    async def openapi(request: Request) -> Response:
        return JSONResponse(describe_routes())

    async def docs(request: Request) -> Response:
        shown = {"info": model.info, "schema": describe_routes()}
        return HTMLResponse(render_page("serving", "docs.html.jinja", shown))

    async def error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, headers = error.status_code, error.headers
        return JSONResponse({"detail": error.detail}, status, headers)

    async def defect(request: Request, error: Exception) -> Response:
        detail = "The server met a defect of its own; its log says more."
        return JSONResponse({"detail": detail}, 500)

    app = Starlette(
        routes=[
            Route("/predict", _timed(predict, metrics), methods=["POST"]),
            Route("/health", health),
            Route("/info", info),
            Route("/metrics", show_metrics),
            Route("/openapi.json", openapi),
            Route("/docs", docs),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts or "*"))
        ],
        exception_handlers={HTTPException: error, Exception: defect},
        lifespan=lifespan,
    )
    app.state.model = model
    return app


def _timed(endpoint: Any, metrics: _Metrics) -> Any:
    """Return a route that counts and logs its requests; never what they hold."""

    async def timed(request: Request) -> Response:
        began, status = time.perf_counter(), 500
        try:
            response: Response = await endpoint(request)
            status = response.status_code
            return response
        except Exception as error:
            status = getattr(error, "status_code", 500)
            raise
        finally:
            seconds = time.perf_counter() - began
            metrics.requests.labels(str(status)).observe(seconds)
            _LOG.debug("/predict %d %.0f ms", status, 1000 * seconds)

    return timed


class _Metrics:
    """The numbers of one application."""

    def __init__(self) -> None:
        prometheus = import_optional(
            "prometheus_client", extra="serve", purpose="Serving"
        )
        self._prometheus = prometheus
        self._registry = prometheus.CollectorRegistry()
        prefix = "sk_medsiglip_"

        def make(kind: Any, name: str, help: str, *labels: str, **how: Any) -> Any:
            return kind(prefix + name, help, labels, registry=self._registry, **how)

        self.requests = make(
            prometheus.Histogram,
            "request_seconds",
            "Time of requests for predictions",
            "status",
        )
        self.images = make(prometheus.Counter, "images", "Images received", "result")
        self.batch = make(
            prometheus.Histogram,
            "batch_images",
            "Images in a pass of the model",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )
        self.waiting = make(prometheus.Gauge, "images_waiting", "Images that wait")
        self.restarts = make(
            prometheus.Gauge, "decoder_restarts", "Decoders that died or were stopped"
        )

    def as_text(self) -> str:
        """Return all numbers in Prometheus's text format."""
        text: str = self._prometheus.generate_latest(self._registry).decode()
        return text
