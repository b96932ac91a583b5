"""Pictures of a session's images, by row number, as its embedder reads them."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError, SessionError
from sk_medsiglip.explore._session import ExploreSession
from sk_medsiglip.images import image_rows, open_study, read_image, study_parts
from sk_medsiglip.zero_shot import prompt_heatmap

_SIZES = (16, 2048)  # the smallest and largest side of a picture, in pixels
_CACHE_BYTES = 64 * 2**20
_READERS = 4  # images that are decoded at a time, whose pixels are in memory
_LOOKED_AT = 100  # images, to find out whether there are studies
_N_STUDIES = 4096  # studies whose order of slices is remembered
_HEAT, _HEAT_SIDE = (213, 94, 0, 170), 256  # colour of heat maps; their side in pixels
_OF_HEATMAPS = (
    *("revision", "resize", "pad", "intensity", "frame", "max_pixels"),
    *("dtype", "device", "cache"),
)


class Thumbnails:
    """Pictures of the images of a session, the last ones kept in memory."""

    def __init__(self, session: ExploreSession) -> None:
        self._session, images = session, session.images
        is_numbers = isinstance(images, np.ndarray) and images.dtype.kind in "biuf"
        self._images: Sequence[Any] | None = None
        if images is not None:
            self._images = list(images) if is_numbers else image_rows(images)
        self._pictures = _Kept(_CACHE_BYTES, len)
        self._studies = _Kept(_N_STUDIES, lambda _: 1)
        self._readers = threading.Semaphore(_READERS)

    @property
    def has_slices(self) -> bool:
        """Whether there are studies among the first images."""
        some = range(min(len(self._images or ()), _LOOKED_AT))
        return any(_is_study(self._image(row)) for row in some)

    def caption(self, row: int) -> str:
        """Return the name of an image's file, without folders."""
        image = None if self._images is None else self._images[row]
        if not isinstance(image, str | os.PathLike):
            return f"image {row}"
        return os.path.basename(os.fsdecode(os.fspath(image)))

    def n_slices(self, row: int) -> int:
        """Return the number of slices of a study; 1 for an image or no image."""
        if self._images is None:
            return 1
        try:
            slices = self._slices(row)
        except ImageReadError:
            return 1
        return 1 if slices is None else len(slices)

    def picture(self, row: int, size: int, place: int | None = None) -> bytes:
        """Return an image or a slice of it as JPEG, its long side at most ``size``."""
        size = int(np.clip(size, *_SIZES))
        key = row, size, place

        def draw() -> bytes:
            try:
                image = Image.fromarray(self._read(row, place))
            except ImageReadError as error:
                error.source = self.caption(row)
                raise
            image.thumbnail((size, size))
            return _written(image, "JPEG", quality=90)

        return self._pictures.get(key, draw)

    def heat(
        self, row: int, positive: Any, negative: Any, place: int | None = None
    ) -> bytes:
        """Return a heat map of prompts as a transparent PNG of an image's shape."""
        embedder = self._session.embedder
        params = embedder.get_params(deep=False)
        values = prompt_heatmap(
            self._source(row, place),
            positive,
            negative=negative,
            model=embedder.model,
            **{name: params[name] for name in _OF_HEATMAPS},
        )
        if negative is None:  # then only patches of one image can be compared
            values = values - np.median(values)
        opacity = np.clip(values, 0, None) / max(float(values.max()), 1e-9)
        overlay = np.full((*values.shape, 4), _HEAT, dtype=np.uint8)
        overlay[..., 3] = opacity * _HEAT[3]
        side = _HEAT_SIDE
        image = Image.fromarray(overlay).resize((side, side), Image.Resampling.BILINEAR)
        if embedder.pad:  # the map is one of the padded square
            height, width = self._read(row, place).shape[:2]
            left, top = (
                side * (1 - one / max(height, width)) / 2 for one in (width, height)
            )
            image = image.crop(
                (round(left), round(top), round(side - left), round(side - top))
            )
        return _written(image, "PNG")

    def _read(self, row: int, place: int | None) -> NDArray[np.uint8]:
        embedder = self._session.embedder
        with self._readers:
            return read_image(
                self._source(row, place),
                intensity=embedder.intensity,
                frame=embedder.frame,
                max_pixels=embedder.max_pixels,
            )

    def _source(self, row: int, place: int | None) -> Any:
        """Return an image, or a slice of a study, by default its middle one."""
        slices = self._slices(row)
        if slices is None:
            return self._image(row)
        place = len(slices) // 2 if place is None else place
        if not 0 <= place < len(slices):
            raise ImageReadError(f"it has {len(slices)} slices, and no slice {place}")
        return slices[place]

    def _slices(self, row: int) -> list[Any] | None:
        image = self._image(row)
        if not _is_study(image):
            return None

        def find() -> list[Any]:
            study = open_study(
                image, study_parts(image), plane="axial", series=None,
                max_pixels=self._session.embedder.max_pixels,
            )  # fmt: skip
            return study.slices

        return self._studies.get(row, find)

    def _image(self, row: int) -> Any:
        if self._images is None:
            raise SessionError("this session has no images, only their embeddings.")
        return self._images[row]


class _Kept:
    """The last results of slow work, of a bounded size together."""

    def __init__(self, limit: int, size_of: Callable[[Any], int]) -> None:
        self._limit, self._size_of, self._size = limit, size_of, 0
        self._held: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        made = make()
        with self._lock:
            if key not in self._held:
                self._held[key] = made
                self._size += self._size_of(made)
            while self._size > self._limit and len(self._held) > 1:
                _, old = self._held.popitem(last=False)
                self._size -= self._size_of(old)
        return made


def _is_study(image: Any) -> bool:
    """Tell whether an image has slices, by its kind or the name of its file."""
    if isinstance(image, str | os.PathLike):
        name = os.fspath(image)
        return str(name).endswith((".nii", ".nii.gz")) or os.path.isdir(name)
    if isinstance(image, np.ndarray) and image.dtype.kind in "biuf":
        return image.ndim == 4 or (image.ndim == 3 and image.shape[-1] not in (1, 3, 4))
    return isinstance(image, list | tuple)


def _written(image: Image.Image, kind: str, **how: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **how)
    return written.getvalue()
