"""Access to the page: for one browser that was given the address, and its own page.

Other pages in the same browser, other servers of this machine and its other users can
reach the port, too. They know neither the path nor the cookie, and their requests have
another Origin.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from sk_medsiglip._web import LOOPBACK

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Bytes that a request may have, and seconds in which they must arrive.
MAX_BODY, BODY_SECONDS = 2**20, 30
_COOKIE = "sk_medsiglip_explore"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action {}; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY.format("'none'"),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ENDED = (
    "This address is not valid, or was used before: it opens the page once, in one "
    "browser. Open it there, or start again and open the address that is printed."
)
#: A page that goes on by itself. A redirect would not do: a browser that comes from
#: another site, such as a notebook, would leave the new cookie out.
_GO_ON = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Explore</title>'
    '<meta http-equiv="refresh" content="0;url=./"><a href="./">Open the page</a>'
)
_ASK = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Password</title>'
    '<form method="post"><p>{}</p><label>Password '
    '<input type="password" name="password" autofocus required></label> '
    "<button>Open</button></form>"
)
_LONGEST_WAIT = 5.0  # seconds between wrong passwords


class Guard:
    """An ASGI application in front of another, which passes its owner's requests on.

    Parameters
    ----------
    app : ASGI application
        The application, without the prefix.
    password : str or None
        Password that opens the page. By default, a token does, once.
    is_loopback : bool
        Whether only this machine can connect, so that the names of others are refused.
    """

    def __init__(
        self, app: ASGIApp, *, password: str | None = None, is_loopback: bool = True
    ) -> None:
        self.prefix = f"/{secrets.token_urlsafe(16)}/"
        self.token = None if password is not None else secrets.token_urlsafe(32)
        self._app, self._password, self._is_loopback = app, password, is_loopback
        self._cookie = secrets.token_urlsafe(32)
        self._n_wrong = 0
        self._one_guess = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        answer = await self._answer(Request(scope, receive))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await answer(scope, receive, send_with_headers)

    async def _answer(self, request: Request) -> ASGIApp:
        """Return the application, or the response to a request that it may not see."""
        # The path as sent: request.url is made from the Host header, too.
        path, is_get = request.scope["path"], request.method == "GET"
        if self._is_loopback and not _is_loopback_name(request):
            return PlainTextResponse("This server has another name.\n", 421)
        if path == "/favicon.ico":  # browsers ask for it, and report a 404
            return Response(status_code=204)
        if not path.startswith(self.prefix):
            return PlainTextResponse("There is nothing here.\n", 404)
        knows = _equal(request.cookies.get(_COOKIE), self._cookie)
        is_start = path == self.prefix
        if is_start and is_get and (not knows or "token" in request.query_params):
            return self._open(request, knows)
        if not _is_from_own_page(request):
            return PlainTextResponse("Only the page itself may ask this.\n", 403)
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return PlainTextResponse("The request is too large.\n", 413)
        if knows:
            request.scope["path"] = path[len(self.prefix) - 1 :]
            return self._app
        if is_start and self._password is not None and request.method == "POST":
            return await self._check_password(request)
        return PlainTextResponse(_ENDED, 403)

    def _open(self, request: Request, knows: bool) -> Response:
        """Answer the first request of a browser, or a repetition of it."""
        if knows:
            return HTMLResponse(_GO_ON)
        if self._password is not None:
            return _ask_password("This page is protected by a password.")
        if not _equal(request.query_params.get("token"), self.token):
            return PlainTextResponse(_ENDED, 403)
        self.token = None
        return self._let_in()

    def _let_in(self) -> Response:
        response = HTMLResponse(_GO_ON)
        response.set_cookie(
            _COOKIE, self._cookie, path=self.prefix, httponly=True, samesite="strict"
        )
        return response

    async def _check_password(self, request: Request) -> Response:
        try:
            body = await read_body(request)
        except (BodyTooLarge, TimeoutError):
            return PlainTextResponse("The request is too large.\n", 413)
        given = parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0]
        async with self._one_guess:  # so that guesses at the same time wait in turn
            await asyncio.sleep(min(0.1 * 2**self._n_wrong - 0.1, _LONGEST_WAIT))
            if _equal(given, self._password):
                self._n_wrong = 0
                return self._let_in()
            self._n_wrong = min(self._n_wrong + 1, 10)
        return _ask_password("That password is wrong.")


class BodyTooLarge(Exception):
    """A body without a length, which went on for too long."""


async def read_body(request: Request) -> bytes:
    """Return the body of a request, which is bounded in size and time."""
    body = bytearray()
    async with asyncio.timeout(BODY_SECONDS):
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                raise BodyTooLarge
    return bytes(body)


def _ask_password(words: str) -> Response:
    # The browser names the origin of a form only if it may name the page.
    headers = {
        "Content-Security-Policy": _POLICY.format("'self'"),
        "Referrer-Policy": "same-origin",
    }
    return HTMLResponse(_ASK.format(words), headers=headers)


def _is_loopback_name(request: Request) -> bool:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname in LOOPBACK
    except ValueError:
        return False


def _is_from_own_page(request: Request) -> bool:
    """Tell whether our page asks, or for a GET whether a person opens an address."""
    is_get = request.method in ("GET", "HEAD")
    site = request.headers.get("sec-fetch-site")
    if site not in ((None, "same-origin", "none") if is_get else (None, "same-origin")):
        return False
    host, origin = request.headers.get("host"), request.headers.get("origin")
    if origin is None:
        return is_get
    return origin in (f"http://{host}", f"https://{host}")


def _equal(given: str | None, wanted: str | None) -> bool:
    if given is None or wanted is None:
        return False
    return hmac.compare_digest(given.encode(), wanted.encode())
