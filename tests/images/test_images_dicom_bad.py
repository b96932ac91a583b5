"""Bad DICOM files, and what must not get out of any: errors, logs, warnings."""

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pydicom
import pytest
from dicom_files import RAMP, drawn, real
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import read_image

# What must not get out


def test_pydicom_is_quiet_here_and_nowhere_else(caplog):
    path = real("MR_small_padded.dcm")
    logging.getLogger("pydicom").setLevel(logging.DEBUG)
    try:
        with caplog.at_level(logging.DEBUG):
            read_image(path)  # its excess padding would be a warning, so an error
            assert not [r for r in caplog.records if r.name == "pydicom"]
            with pytest.warns(UserWarning, match="padding"):
                pydicom.dcmread(path).pixel_array  # noqa: B018
            assert [r for r in caplog.records if r.name == "pydicom"]
    finally:
        logging.getLogger("pydicom").setLevel(logging.WARNING)


def test_other_threads_keep_their_warnings():
    path = real("MR_small_padded.dcm")
    content = path.read_bytes()
    with ThreadPoolExecutor(4) as threads, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        reading = [threads.submit(read_image, content) for _ in range(60)]
        for line in range(20):  # as pydicom would, used directly by somebody else
            warnings.warn_explicit("mine", UserWarning, "f.py", line, "pydicom.x")
        for future in reading:
            future.result()
    assert [str(warning.message) for warning in seen] == ["mine"] * 20


@pytest.mark.parametrize(
    "tags",
    [
        {"Rows": 9},
        {"WindowCenter": 3, "WindowWidth": 1, "PhotometricInterpretation": "RGB"},
        {"BitsAllocated": 7},
        {"SOPClassUID": "1.2.826.99", "Rows": None, "PixelData": None},
    ],
)
def test_errors_hold_no_values_of_tags(tags, caplog):
    with pytest.raises(ImageReadError) as caught:
        read_image(drawn(RAMP, **tags))
    error: BaseException | None = caught.value
    while error is not None:
        assert "Doe" not in str(error)
        assert "1.2.826" not in str(error)
        error = error.__cause__
    assert not caplog.records


# Bad files


def without_pixels(sop_class):
    return drawn(RAMP, SOPClassUID=sop_class, PixelData=None, Rows=None)


BAD = {
    "structured report": (
        lambda: without_pixels("1.2.840.10008.5.1.4.1.1.88.11"),
        "it holds no pixels: it is a Basic Text SR Storage object",
        "Leave it out",
    ),
    "contours": (
        lambda: without_pixels("1.2.840.10008.5.1.4.1.1.481.3"),
        "it holds no pixels: it is a RT Structure Set Storage object",
        "Leave it out",
    ),
    "document": (
        lambda: without_pixels("1.2.840.10008.5.1.4.1.1.104.1"),
        "it holds no pixels: it is a Encapsulated PDF Storage object",
        "Leave it out",
    ),
    "presentation state": (
        lambda: without_pixels("1.2.840.10008.5.1.4.1.1.11.1"),
        "it holds no pixels: it is a Grayscale Softcopy Presentation State Storage",
        "Leave it out",
    ),
    "waveform": (
        lambda: without_pixels("1.2.840.10008.5.1.4.1.1.9.1.1"),
        "it holds no pixels: it is a 12-lead ECG Waveform Storage object",
        "Leave it out",
    ),
    "retired colours": (
        lambda: drawn(np.zeros((2, 2, 3), np.uint8), PhotometricInterpretation="HSV"),
        "its pixels are HSV, which is not supported",
        "Export it as RGB",
    ),
    "colours that nobody knows": (
        lambda: drawn(RAMP, PhotometricInterpretation="DOE JANE"),
        "its pixels are colours of an unknown kind, which is not supported",
        "Export it as RGB",
    ),
    "two values a pixel": (
        lambda: drawn(RAMP, SamplesPerPixel=2),
        "it has 2 values per pixel, not 1 or 3",
        "Copy or export it again.",
    ),
    "image without pixels": (
        lambda: drawn(RAMP, PixelData=None),
        "its pixels are missing or cut short",
        "Copy or export it again.",
    ),
    "pixels cut short": (
        lambda: drawn(np.zeros((50, 50), np.uint16))[:-1000],
        "(its pixels are|its DICOM tags).*(cut short|cannot be read)",
        "Copy or export it again.",
    ),
    "tags cut short": (
        lambda: drawn(RAMP)[:300],
        "its .* (missing or cut short|cannot be read)",
        "Copy or export it again.",
    ),
    "only the magic": (lambda: bytes(128) + b"DICM", "it holds no pixels", ""),
    "no photometric interpretation": (
        lambda: drawn(RAMP, PhotometricInterpretation=None),
        "its pixels are damaged, cut short, or differ from its tags",
        "Copy or export it again.",
    ),
    "colours announced, grey stored": (
        lambda: drawn(RAMP, PhotometricInterpretation="RGB"),
        "its tags announce colours, but its pixels are grey",
        "Copy or export it again.",
    ),
    "more rows than pixels": (
        lambda: drawn(RAMP, Rows=500),
        "its pixels are missing or cut short",
        "Copy or export it again.",
    ),
    "a lying size": (
        lambda: drawn(RAMP, Rows=60000, Columns=60000),
        "it has 60000 x 60000 = 3600000000 pixels, more than max_pixels=178956970",
        "If the file can be trusted, raise max_pixels",
    ),
    "video": (
        lambda: drawn(RAMP, syntax=MPEG2MPML, PixelData=encapsulate([bytes(10)])),
        "its pixels are stored as MPEG2 Main Profile",
        "Export it as uncompressed DICOM",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_dicom_files_are_explained(case, tmp_path):
    make, reason, hint = BAD[case]
    path = tmp_path / "bad.dcm"
    path.write_bytes(make())
    with pytest.raises(ImageReadError, match=f"^{path}: {reason}") as caught:
        read_image(path)
    assert hint in caught.value.hint
