"""The page over HTTP: addresses, and what answers them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sk_medsiglip.exceptions import (
    ImageReadError,
    SkMedSiglipError,
    SkMedSiglipWarning,
)
from sk_medsiglip.explore._guard import BodyTooLarge, Guard, read_body
from sk_medsiglip.explore._page import Page

#: Errors that a person can mend; any other is a fault of ours.
_MENDABLE = (SkMedSiglipError, ValueError, TypeError, LookupError, OSError)
_TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css",
    ".svg": "image/svg+xml",
}  # fmt: skip
_FOR_AN_HOUR = {"Cache-Control": "private, max-age=3600"}


def make_page(page: Page, *, password: str | None, is_loopback: bool) -> Guard:
    """Return the ASGI application of a page, behind its guard."""
    routes = [
        *(_get(f"/{name}", page, answer) for name, answer in {
            "state": page.state, "map": page.map, "queue": page.queue,
            "suspects": page.suspects, "neighbours": page.neighbours,
            "rows": page.rows,
        }.items()),
        *(_post(f"/{name}", page, answer) for name, answer in {
            "view": page.set_view, "score": page.score, "prompts": page.use_prompts,
            "select": page.select, "label": page.label, "undo": page.undo,
            "refit": page.refit, "end": page.end, "judge": page.judge,
            "save": page.save, "quit": page.quit,
        }.items()),
        _get("/map.png", page, page.map_picture, "image/png"),
        _get("/heat", page, page.heat, "image/png", is_locked=False),
        _get("/image", page, page.image, "image/jpeg", is_locked=False,
             headers=_FOR_AN_HOUR),
        Route("/files/{name}", _download(page)),
        *_static_files(),
    ]  # fmt: skip
    return Guard(Starlette(routes=routes), password=password, is_loopback=is_loopback)


def _get(
    path: str,
    page: Page,
    answer: Callable[[Mapping[str, Any]], Any],
    media_type: str | None = None,
    *,
    is_locked: bool = True,
    headers: Mapping[str, str] | None = None,
) -> Route:
    """Return a route whose query is answered by JSON, or by bytes."""

    def endpoint(request: Request) -> Response:
        def make() -> Response:
            found = answer(dict(request.query_params))
            if media_type is None:
                return JSONResponse(found)
            return Response(found, media_type=media_type, headers=headers)

        return _respond(page, make, is_locked=is_locked)

    return Route(path, endpoint)


def _post(path: str, page: Page, answer: Callable[[Mapping[str, Any]], Any]) -> Route:
    """Return a route whose body of JSON is answered by JSON."""

    async def endpoint(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind != "application/json":
            return JSONResponse({"error": "The body must be JSON."}, 415)
        try:
            asked = json.loads(await read_body(request) or b"{}")
        except BodyTooLarge:
            return PlainTextResponse("The request is too large.\n", 413)
        except TimeoutError:
            return PlainTextResponse("The request took too long.\n", 408)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            return JSONResponse({"error": "The body is not an object of JSON."}, 400)
        return await run_in_threadpool(
            _respond, page, lambda: JSONResponse(answer(asked))
        )

    return Route(path, endpoint, methods=["POST"])


def _download(page: Page) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        name = request.path_params["name"]
        return _respond(page, lambda: FileResponse(page.file(name), filename=name))

    return endpoint


def _static_files() -> list[Route]:
    """Return routes of the files of the page, which are read once."""

    def route(path: str, content: bytes, media_type: str) -> Route:
        return Route(path, lambda request: Response(content, media_type=media_type))

    routes = []
    for file in (files("sk_medsiglip.explore") / "page").iterdir():
        ending = f".{file.name.rpartition('.')[2]}"
        if ending in _TYPES:
            path = "/" if file.name == "page.html" else f"/{file.name}"
            routes.append(route(path, file.read_bytes(), _TYPES[ending]))
    return routes


def _respond(
    page: Page, make: Callable[[], Response], *, is_locked: bool = True
) -> Response:
    """Return a response, or the sentence of an error; warnings go into the page."""
    try:
        if not is_locked:
            return make()
        with page.lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            response = make()
            for one in caught:
                if issubclass(one.category, SkMedSiglipWarning):
                    page.note(str(one.message))
            return response
    except (ImageReadError, FileNotFoundError) as error:
        return JSONResponse({"error": str(error)}, 404)
    except KeyError as error:
        return JSONResponse({"error": f"The request lacks {error}."}, 400)
    except _MENDABLE as error:
        return JSONResponse({"error": str(error)}, 400)
