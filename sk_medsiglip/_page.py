"""Self-contained HTML pages, with one style for the pages of several rooms.

``page/`` contains the style and common parts; each room has its own templates.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 256  # largest side of a thumbnail, in pixels


class Picture(NamedTuple):
    """An image or drawing as a data URI, with its alternative text and caption."""

    source: str
    alt: str
    caption: str


def render_page(
    room: str,
    template: str,
    context: Mapping[str, Any],
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> str:
    """Render a template of a room, with all values escaped."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("sk_medsiglip", one) for one in (room, "page")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(filters or {})
    return environment.get_template(template).render(context)


def photograph(picture: NDArray[Any]) -> str:
    """Return a small copy of an image as a data URI."""
    written = io.BytesIO()
    image = Image.fromarray(np.asarray(picture))
    image.thumbnail((_SIDE, _SIDE))
    image.save(written, format="PNG")
    return data_uri(written.getvalue(), "image/png")


def data_uri(content: bytes, kind: str = "image/svg+xml") -> str:
    """Return the content of a file as a data URI."""
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"
