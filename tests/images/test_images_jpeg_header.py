"""Headers of compressed DICOM frames: whole ones pass, damaged ones are named."""

import io
import struct

import numpy as np
import pydicom
import pytest
from dicom_files import real
from PIL import Image
from pydicom.encaps import get_frame

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._dicom_jpeg import check_jpeg, codestream

REAL = {
    "lossless": "SC_rgb_jpeg_gdcm.dcm",
    "baseline": "SC_rgb_small_odd_jpeg.dcm",
    "extended": "JPGExtended.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG-LS, lossy": "JPEGLSNearLossless_16.dcm",
}


def frame_of(name):
    dataset = pydicom.dcmread(real(name))
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def jpeg(**options):
    values = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", REAL)
def test_real_frames_pass(kind):
    check_jpeg(frame_of(REAL[kind]))


def test_pillows_files_pass():
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        check_jpeg(jpeg(**options))
    check_jpeg(jpeg(comment=b"a comment")[:2] + b"\xff" + jpeg()[2:])  # a fill byte


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


SOF = segment(0xC3, bytes([8, 0, 20, 0, 20, 1, 1, 0x11, 0]))
DHT = segment(0xC4, bytes([0, 1, *[0] * 15, 5]))
DQT = segment(0xDB, bytes([0, *range(1, 65)]))
SOS = segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
WHOLE = b"\xff\xd8" + SOF + DHT + DQT + SOS + b"\x12\x34"


def test_the_frame_that_is_damaged_below_is_whole():
    check_jpeg(WHOLE)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b"\xff\xd8", b"\xff\xd7", "does not start"),
        (SOF, b"", "has no frame header"),
        (SOF, SOF + SOF, "has two frame headers"),
        (SOF, SOF + b"\0\0", "has bytes between its segments"),
        (SOF, SOF[:-1], "has bytes between its segments"),
        (SOF, segment(0xC3, SOF[4:-1]), "has a damaged frame header"),
        (SOF, SOF.replace(b"\x11", b"\x01"), "has impossible sampling factors"),
        (SOF, SOF.replace(b"\x11", b"\x1f"), "has impossible sampling factors"),
        (SOF, b"\xff\xc9" + SOF[2:], "has a segment of unknown kind 0xc9"),
        (DHT, segment(0xC4, DHT[4:-1]), "has a damaged Huffman table"),
        (DHT, segment(0xC4, bytes([0] + [255] * 16) + bytes(4080)), "Huffman table"),
        (DHT, segment(0xC4, b"\0\0"), "has a damaged Huffman table"),
        (DQT, segment(0xDB, bytes(64)), "has a damaged quantisation table"),
        (DQT, segment(0xDB, bytes([0x25, *bytes(128)])), "quantisation table"),
        (DQT, segment(0xDB, bytes([0x04, *bytes(64)])), "quantisation table"),
        (DQT, segment(0xDD, b"\0"), "has a restart interval"),
        (SOS, segment(0xDA, SOS[4:-1]), "has a damaged scan header"),
        (SOS, segment(0xDA, bytes([2, 1, 0, 2, 0, 1, 0, 0])), "has a scan of compo"),
        (SOS, segment(0xDA, bytes([1, 1, 0, 8, 0, 0])), "has an unknown predictor"),
        (SOS + b"\x12\x34", SOS[:6], "has a segment that is cut short"),
        (SOS + b"\x12\x34", b"", "ends before its pixels"),
    ],
)
def test_damage_is_named(old, new, what):
    assert WHOLE.count(old) == 1
    with pytest.raises(ImageReadError) as caught:
        check_jpeg(WHOLE.replace(old, new))
    assert caught.value.reason.startswith("its JPEG frame ")
    assert what in caught.value.reason
    assert caught.value.hint.endswith(".")


def test_every_cut_of_a_header_is_an_error():
    for end in range(len(WHOLE) - 2):
        with pytest.raises(ImageReadError):
            check_jpeg(WHOLE[:end])


def test_boxes_around_jpeg_2000():
    values = Image.fromarray(np.zeros((8, 8), np.uint8))
    stream = io.BytesIO()
    values.save(stream, "JPEG2000")
    whole = stream.getvalue()
    assert whole[4:8] == b"jP  "
    bare = whole[whole.index(b"\xff\x4f\xff\x51") :]
    assert codestream(whole) == codestream(bare) == bare
    assert codestream(b"") == b""
    for length in (0, 7):
        with pytest.raises(ImageReadError, match="box"):
            codestream(whole[:12] + struct.pack(">I", length) + whole[16:])
