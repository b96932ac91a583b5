"""An application on a real port of this machine, and images as clients send them."""

import io
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn
from PIL import Image


@contextmanager
def running(app):
    """Run an application on a free port; give a client of it."""
    config = uvicorn.Config(app, port=0, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        # As many connections as a test wants; on a busy machine some wait for long.
        limits = httpx.Limits(max_connections=None)
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, timeout=120, limits=limits) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def encoded(image, kind="PNG"):
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()
