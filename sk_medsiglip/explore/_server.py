"""A server of the page: its socket, its address, its start and its end."""

from __future__ import annotations

import html
import os
import sys
import tempfile
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path

import uvicorn

from sk_medsiglip._web import LOOPBACK, bind
from sk_medsiglip.explore._app import make_page
from sk_medsiglip.explore._page import Page
from sk_medsiglip.explore._session import ExploreSession

_REDIRECT = (
    '<!doctype html><meta charset="utf-8"><title>Explore</title>'
    '<meta http-equiv="refresh" content="0;url={0}"><a href="{0}">Open the page</a>'
)


class PageServer:
    """The server of a page; :func:`~sk_medsiglip.explore.explore` returns it."""

    def __init__(self, page: Page, host: str, port: int, password: str | None) -> None:
        self._page, self._host = page, host
        is_loopback = host in LOOPBACK
        self._guard = make_page(page, password=password, is_loopback=is_loopback)
        self._socket = bind(host, port)
        self._socket.listen()  # a browser may come before the server runs
        config = uvicorn.Config(
            self._guard, log_level="warning", access_log=False, server_header=False,
            lifespan="off", ws="none",
            timeout_graceful_shutdown=5,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None
        self._redirect: Path | None = None
        page.quit_server = self._end

    @property
    def session(self) -> ExploreSession:
        """The session that the page shows."""
        return self._page.session

    @property
    def url(self) -> str:
        """The address of the page, with its token until that was used."""
        port = self._socket.getsockname()[1]
        name = f"[{self._host}]" if ":" in self._host else self._host
        token = self._guard.token
        query = "" if token is None else f"?token={token}"
        return f"http://{name}:{port}{self._guard.prefix}{query}"

    def stop(self) -> None:
        """Stop the server and the embedding; labels are in their file already."""
        self._end()
        if self._thread is not None:
            self._thread.join()

    def run(self) -> None:
        """Answer requests until Ctrl-C, or until the page ends the server."""
        if self._page.embedding is not None:
            self._page.embedding.start()
        try:
            with suppress(KeyboardInterrupt):
                self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            if self._page.embedding is not None:
                self._page.embedding.stop()
            if self._redirect is not None:
                self._redirect.unlink(missing_ok=True)

    def start(self) -> None:
        """Answer requests in a thread."""
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()

    def open_browser(self) -> None:
        """Open the page in a browser, where there is a screen.

        The browser is given a file that only this user can read: its command line, with
        the address in it, could be read by every user of the machine.
        """
        has_screen = {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
        if sys.platform == "linux" and not has_screen:
            return
        handle, name = tempfile.mkstemp(prefix="explore-", suffix=".html")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_REDIRECT.format(html.escape(self.url)))
        self._redirect = Path(name)
        with suppress(webbrowser.Error):
            webbrowser.open(self._redirect.as_uri())

    def _end(self) -> None:
        self._server.should_exit = True

    def _repr_html_(self) -> str:
        url = html.escape(self.url)
        return f'<a href="{url}" target="_blank" rel="noreferrer">{url}</a>'
