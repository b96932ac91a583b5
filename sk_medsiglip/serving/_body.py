"""The images of one HTTP request, read with limits on size and time."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from sk_medsiglip._json import read_json

if TYPE_CHECKING:
    from starlette.requests import Request

_JSON, _FORM = "application/json", "multipart/form-data"


@dataclass
class BodyReader:
    """Reads bodies; those of all clients at a time share ``max_buffered`` bytes."""

    max_body: int
    max_buffered: int
    max_images: int
    seconds: float
    _buffered: int = field(default=0, init=False)

    @asynccontextmanager
    async def images_of(self, request: Request) -> AsyncIterator[list[bytes]]:
        """Give the contents of the images in a request, while they are in memory."""
        before = self._buffered
        body = bytearray()
        try:
            await self._read(request, body)
            yield await self._split(request, bytes(body))
        finally:
            self._buffered -= len(body)
            assert self._buffered >= 0, before

    async def _read(self, request: Request, body: bytearray) -> None:
        """Read a body whole, or raise the HTTP error that says why not."""
        declared = request.headers.get("content-length", "")
        too_large = HTTPException(
            413, f"The body is larger than the {self.max_body} bytes allowed."
        )
        if declared.isdigit() and int(declared) > self.max_body:
            raise too_large
        try:
            async with asyncio.timeout(self.seconds):
                async for part in request.stream():
                    body += part
                    self._buffered += len(part)
                    if len(body) > self.max_body:
                        raise too_large
                    if self._buffered > self.max_buffered:
                        raise busy()
        except TimeoutError:
            raise HTTPException(
                408, f"The body did not arrive within {self.seconds:g} s."
            ) from None
        except ClientDisconnect:
            raise HTTPException(400, "The body ended too early.") from None

    async def _split(self, request: Request, body: bytes) -> list[bytes]:
        """Return the images in a body, by its content type."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == _JSON:
            images = _from_json(body)
        elif kind == _FORM:
            images = await self._from_form(request, body)
        else:
            images = [body]
        if not any(images):
            raise HTTPException(422, "The request holds no image.")
        if len(images) > self.max_images:
            raise HTTPException(
                413,
                f"The request holds {len(images)} images; {self.max_images} are "
                "allowed. Send several requests.",
            )
        return images

    async def _from_form(self, request: Request, body: bytes) -> list[bytes]:
        async def stream() -> AsyncIterator[bytes]:
            yield body

        parser = MultiPartParser(
            request.headers, stream(), max_files=self.max_images, max_fields=100
        )
        parser.spool_max_size = self.max_body  # nothing of an image goes to the disk
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError) as error:
            raise HTTPException(422, f"The form cannot be read: {error}") from None
        try:
            parts = [part for _, part in form.multi_items()]
            return [await part.read() for part in parts if not isinstance(part, str)]
        finally:
            await form.close()


def busy() -> HTTPException:
    """Return the error for a client that has to come again."""
    return HTTPException(
        503, "The server is busy. Try again.", headers={"Retry-After": "1"}
    )


def _from_json(body: bytes) -> list[bytes]:
    """Return the images of ``{"images": [base64, ...]}``."""
    try:
        given: list[Any] = read_json(body, {"images": list})["images"]
        return [binascii.a2b_base64(one, strict_mode=True) for one in given]
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise HTTPException(
            422,
            'The JSON must be {"images": [...]} with images as base64 texts; '
            f"{error}.",
        ) from None
