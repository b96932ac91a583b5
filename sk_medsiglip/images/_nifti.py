"""NIfTI volumes: planes in radiological orientation, grey limits of the volume."""

from __future__ import annotations

import functools
import gzip
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._decoded_image import DecodedImage, refuse_too_large
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._grey_range import GreyRange
from sk_medsiglip.images._intensity import Percentiles
from sk_medsiglip.images._lazy import Held, Part
from sk_medsiglip.images._sources import describe, open_source

_HEADER_BYTES = 540

#: Planes perpendicular to the axes to the patient's right, to the front, and upwards.
_AXES = ("sagittal", "coronal", "axial")

#: Air; signals of MR scanners and probabilities are never so low.
_HOUNSFIELD_AIR = -900

#: Deflate packs at most this many bytes into one.
_DEFLATE_LIMIT = 1032

_DAMAGED = "its voxels are damaged or cut short"
_AGAIN = "Copy or convert it again."


@dataclass(frozen=True, eq=False)
class _Header:
    """Shape, type, axes and rescale of the voxels."""

    shape: tuple[int, ...]
    type: np.dtype
    orientation: NDArray[np.float64]
    slope: float
    intercept: float


class NiftiVolume(Held[NDArray[Any]]):
    """A NIfTI file: the header is read at once, the voxels with the first slice."""

    def __init__(self, source: Any, plane: str) -> None:
        super().__init__()
        self.source = source
        self.plane = plane
        with open_source(source) as stream:
            self._header, _, _ = _open(stream)
        self.grey_range = GreyRange(self._slabs)

    def slices(self) -> list[Part]:
        """Return its planes, ordered feet to head, front to back, or left to right."""
        n_slices = _canonical_shape(self._header)[_AXES.index(self.plane)]
        name = f"{describe(self.source)}, {self.plane} slice"
        return [
            Part(f"{name} {index}", functools.partial(self.image, index))
            for index in range(n_slices)
        ]

    def looks_like_hounsfield(self) -> bool:
        """Whether the values read so far look like those of a CT."""
        if not self.grey_range.is_known:
            return False
        low, high = self.grey_range.extremes()
        # Phase images and parts of complex ones are symmetric around 0; CT is not.
        most = self.grey_range.limits(Percentiles(5, 95))
        is_even = _is_even(low, high, 0.01) and _is_even(*most, 0.05)
        return low <= _HOUNSFIELD_AIR and not is_even

    def image(self, index: int, max_pixels: int) -> DecodedImage:
        """Return one plane, in the orientation of DICOM slices."""
        from nibabel.orientations import apply_orientation

        sizes = zip(_AXES, _canonical_shape(self._header), strict=True)
        width, height = (size for axis, size in sizes if axis != self.plane)
        refuse_too_large(height, width, max_pixels)
        # A view whose axes point right, forwards and up (RAS+).
        canonical = apply_orientation(self.content(), self._header.orientation)
        values = _plane(canonical, self.plane, index)
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        in_unit = self._in_unit
        if values.dtype.kind == "f":
            # Some programs write NaN outside of the measured body.
            values = values if in_unit is None else in_unit(values)
            in_unit = None
            if not np.isfinite(values).all():
                lowest = self.grey_range.extremes()[0]
                values = np.where(np.isfinite(values), values, lowest)
        return DecodedImage(
            values,
            auto=Percentiles(),
            format="NIfTI",
            in_unit=in_unit,
            limits=self.grey_range.limits,
        )

    def _load(self) -> NDArray[Any]:
        with open_source(self.source) as stream:
            header, stored, unpacked = _open(stream)
            if (header.shape, header.type) != (self._header.shape, self._header.type):
                raise ImageReadError("it changed while it was being read", "Run again.")
            with decoding(_DAMAGED, _AGAIN):
                try:
                    voxels = np.asarray(stored.get_unscaled()).reshape(header.shape)
                except MemoryError as error:
                    raise ImageReadError(
                        f"its {' x '.join(map(str, header.shape))} voxels need more "
                        "memory than is available",
                        "Unpack it with gunzip: voxels of a .nii file stay on disk.",
                    ) from error
                # Read to the end, where the checksum of a packed file is.
                while unpacked is not stream and unpacked.read(2**20):
                    continue
                return voxels

    @property
    def _in_unit(self) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
        slope, intercept = self._header.slope, self._header.intercept
        if (slope, intercept) == (1, 0):
            return None
        return lambda stored: stored.astype(np.float64) * slope + intercept

    def _slabs(self) -> Iterator[DecodedImage]:
        voxels = self.content()
        native = voxels.dtype.newbyteorder("=")
        for index in range(voxels.shape[2]):  # the axis along which the file is written
            slab = voxels[:, :, index].astype(native)
            yield DecodedImage(slab, None, "NIfTI", in_unit=self._in_unit)


def _is_even(low: float, high: float, tolerance: float) -> bool:
    return abs(low + high) < tolerance * (high - low)


def _open(stream: BinaryIO) -> tuple[_Header, Any, Any]:
    """Return the header, nibabel's proxy of the voxels, and the stream behind it."""
    nibabel = import_optional("nibabel", extra="nifti", purpose="Reading NIfTI files")
    n_bytes = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    is_packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    unpacked: Any = gzip.GzipFile(fileobj=stream) if is_packed else stream
    with decoding("its NIfTI header is damaged or cut short", _AGAIN):
        head = unpacked.read(_HEADER_BYTES)
        unpacked.seek(0)
        is_second = head[4:8] in (b"n+2\0", b"ni2\0")
        if head[4:7] == b"ni2" or head[344:347] == b"ni1":
            raise ImageReadError(
                "its header and voxels are in two separate files",
                "Convert it to a single file: "
                'nibabel.load("name.hdr").to_filename("name.nii.gz").',
            )
        kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
        image = kind.from_stream(unpacked)
        shape = tuple(int(size) for size in image.shape)
        orientation = nibabel.io_orientation(image.affine)
        stored = image.dataobj
        slope, intercept = float(stored.slope), float(stored.inter)
    shape = _check_shape(shape)
    _check_type(stored.dtype)
    if not np.isfinite(orientation).all() or not np.isfinite([slope, intercept]).all():
        raise ImageReadError("its header does not give valid axes", _AGAIN)
    # Checked before anything of that size is allocated.
    announced = int(np.prod(shape, dtype=np.float64)) * stored.dtype.itemsize
    if announced > n_bytes * (_DEFLATE_LIMIT if is_packed else 1):
        raise ImageReadError(_DAMAGED, _AGAIN)

    header = _Header(shape, stored.dtype, orientation, slope, intercept)
    return header, stored, unpacked


def _check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if min(shape, default=0) < 1:
        raise ImageReadError("it has no voxels", "Remove it from X.")
    n_volumes = int(np.prod(shape[3:]))
    if n_volumes > 1:
        raise ImageReadError(
            f"it holds {n_volumes} volumes, but one is needed",
            "Save one of them: "
            "nibabel.load(path).slicer[..., 0].to_filename(new_path).",
        )
    return (*shape, 1, 1)[:3]


def _check_type(type: np.dtype) -> None:
    if type.kind not in "iuf" or type.itemsize > 8:
        content = "colours" if type.names else f"voxels of type {type}"
        raise ImageReadError(
            f"it holds {content}, but grey values are needed",
            "Save its magnitude or one channel as float32.",
        )


def _canonical_shape(header: _Header) -> list[int]:
    """Return the sizes to the patient's right, to the front, and upwards."""
    sizes = [0, 0, 0]
    for size, (axis, _) in zip(header.shape, header.orientation, strict=True):
        sizes[int(axis)] = size
    return sizes


def _plane(canonical: NDArray[Any], plane: str, index: int) -> NDArray[Any]:
    """Return one plane as displayed; planes are ordered as in DICOM."""
    if plane == "axial":  # the patient's right at the left, front at the top
        return canonical[::-1, ::-1, index].T
    if plane == "coronal":  # the patient's right at the left, head at the top
        return canonical[::-1, -1 - index, ::-1].T
    return canonical[index, ::-1, ::-1].T  # front at the left, head at the top
