"""Compressed DICOM: every transfer syntax, with real files or ones encoded here."""

import base64
import io
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from dicom_files import drawn, real
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import MAX_PIXELS, _dicom_jpeg, _read, read_image

gdcm = pytest.importorskip("gdcm", reason='pip install "sk-medsiglip[dicom]"')

#: GDCM's names of what it can write without loss.
GDCM_NAMES = {
    JPEGLossless: "JPEGLosslessProcess14",
    JPEGLosslessSV1: "JPEGLosslessProcess14_1",
    JPEGLSLossless: "JPEGLSLossless",
    JPEG2000Lossless: "JPEG2000Lossless",
}

NAMES = {"u": "unsigned", "i": "signed"}


def values_of(source, **options):
    return _read.load_image(source, frame=None, max_pixels=MAX_PIXELS, **options).values


def wave(bits, kind="u", *, samples=1, shape=(37, 42)):
    """Return an image that uses all values of so many bits."""
    rng = np.random.default_rng(bits)
    y, x = np.mgrid[: shape[0], : shape[1]]
    levels = (7 * x + 13 * y) % 61 / 60 * (2**bits - 1)
    levels = np.clip(levels + rng.integers(-2, 3, shape), 0, 2**bits - 1)
    if samples == 3:
        levels = np.stack([levels, levels[::-1], levels[:, ::-1]], axis=-1)
    levels = levels - (2 ** (bits - 1) if kind == "i" else 0)
    return levels.astype(f"{kind}{1 if bits <= 8 else 2}")


def encoded(content, syntax, folder):
    """Return an uncompressed DICOM file as GDCM compresses it."""
    plain, coded = folder / "plain.dcm", folder / "coded.dcm"
    plain.write_bytes(content)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    kind = getattr(gdcm.TransferSyntax, GDCM_NAMES[syntax])
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(coded))
    assert writer.Write()
    assert pydicom.dcmread(coded).file_meta.TransferSyntaxUID == syntax
    return coded.read_bytes()


def wrapped(frame, values, syntax, **tags):
    """Return a DICOM file that holds a frame which is coded already."""
    frame += b"\0" * (len(frame) % 2)
    dataset = pydicom.dcmread(io.BytesIO(drawn(values, **tags)))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def frame_of(path):
    dataset = pydicom.dcmread(path)
    return next(pydicom.encaps.generate_fragments(dataset.PixelData[8:]))


# Lossless codecs give back what was put in


@pytest.mark.parametrize("kind", "ui", ids=NAMES.get)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("syntax", GDCM_NAMES, ids=lambda uid: UID(uid).keyword)
def test_lossless_grey(syntax, bits, kind, tmp_path):
    values = wave(bits, kind)
    plain = drawn(values, BitsStored=bits, HighBit=bits - 1)
    coded = encoded(plain, syntax, tmp_path)
    np.testing.assert_array_equal(values_of(coded), values)
    np.testing.assert_array_equal(read_image(coded), read_image(plain))


@pytest.mark.parametrize("syntax", GDCM_NAMES, ids=lambda uid: UID(uid).keyword)
def test_lossless_colour(syntax, tmp_path):
    colours = wave(8, samples=3)
    coded = encoded(drawn(colours), syntax, tmp_path)
    np.testing.assert_array_equal(read_image(coded), colours)


@pytest.mark.parametrize(("samples", "kind"), [(1, "u"), (1, "i"), (3, "u")])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("plugin", ["pylibjpeg", "pydicom"])
def test_run_lengths(plugin, samples, bits, kind):
    values = wave(bits, kind, samples=samples, shape=(37, 41))  # odd segments
    tags = {"BitsStored": bits, "HighBit": bits - 1}
    dataset = pydicom.dcmread(io.BytesIO(drawn(values, **tags)))
    dataset.compress(RLELossless, encoding_plugin=plugin)
    stream = io.BytesIO()
    dataset.save_as(stream)
    np.testing.assert_array_equal(values_of(stream.getvalue()), values)


def test_run_lengths_of_a_value_that_does_not_stand_lowest():
    values = wave(12)
    moved = (values * 16 + 5).astype(np.uint16)
    dataset = pydicom.dcmread(io.BytesIO(drawn(moved)))
    dataset.compress(RLELossless)
    dataset.BitsStored, dataset.HighBit = 12, 15
    stream = io.BytesIO()
    dataset.save_as(stream)
    np.testing.assert_array_equal(values_of(stream.getvalue()), values)


#: ``wave(12, shape=(5, 6))`` by OpenJPH, through imagecodecs.htj2k_encode(...,
#: reversible=True): no codec of ours writes high-throughput JPEG 2000.
HTJ2K_FRAME = base64.b64decode(
    "/0//UQApQAAAAAAGAAAABQAAAAAAAAAAAAAABgAAAAUAAAAAAAAAAAABDwEB/1AACAACAAAACv9S"
    "AAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4z"
    "Lv+QAAoAAAAAAI8AAf+TwAAmv+4FB3QAAADAABLAABNAABMAngGHdADw+QMHdAC57AQHdADAABPA"
    "ABPAABMAnkD2AoN0AAyi4wDCNAAw/AMHdADAAC1YAAV8AAK8AxQogALYO0ow7IHc+wMC3FGBv5gA"
    "A/BAA8AkEvzAAEKBv5YAApCBAQAEPMADAKUAf5YA/9k="
)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL])
def test_high_throughput_jpeg_2000(syntax):
    values = wave(12, shape=(5, 6))
    content = wrapped(HTJ2K_FRAME, values, syntax, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(values_of(content), values)


def test_signed_jpeg_ls_of_more_bits_than_are_stored(tmp_path):
    # As some writers do it: 12 bits of a signed value in a frame that says 16.
    values = wave(12, "i")
    bits = values.view(np.uint16) % 4096
    frame_file = tmp_path / "frame.dcm"
    frame_file.write_bytes(encoded(drawn(bits), JPEGLSLossless, tmp_path))
    frame = frame_of(frame_file)
    assert _dicom_jpeg.jpeg_header(frame).precision == 16
    content = wrapped(frame, values, JPEGLSLossless, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(values_of(content), values)


# Real files, lossless and lossy


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("693_J2KR.dcm", "693_UNCR.dcm"),
        ("MR2_J2KR.dcm", "MR2_UNCR.dcm"),
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("RG3_J2KR.dcm", "RG3_UNCR.dcm"),
        ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb.dcm"),
        ("SC_rgb_rle.dcm", "SC_rgb.dcm"),
        ("US1_J2KR.dcm", "US1_UNCR.dcm"),
        ("OBXXXX1A_rle.dcm", "OBXXXX1A.dcm"),
    ],
)
def test_lossless_files_equal_their_originals(name, original):
    np.testing.assert_array_equal(read_image(real(name)), read_image(real(original)))


@pytest.mark.parametrize(
    ("name", "original", "largest"),
    [
        ("693_J2KI.dcm", "693_UNCI.dcm", 1),
        ("MR2_J2KI.dcm", "MR2_UNCI.dcm", 1),
        ("RG1_J2KI.dcm", "RG1_UNCI.dcm", 1),
        ("US1_J2KI.dcm", "US1_UNCI.dcm", 1),
        ("SC_rgb_gdcm_KY.dcm", "SC_rgb_gdcm2k_uncompressed.dcm", 1),
        ("SC_rgb_jls_lossy_line.dcm", "SC_rgb.dcm", 4),
        ("SC_rgb_jls_lossy_sample.dcm", "SC_rgb.dcm", 4),
        ("SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_ebcr_dcmd.dcm", 2),
        ("SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_ebcyn1_dcmd.dcm", 2),
        ("SC_rgb_dcmtk_+eb+cy+n2.dcm", "SC_rgb_dcmtk_ebcyn2_dcmd.dcm", 2),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_dcmtk_ebcynp_dcmd.dcm", 2),
        ("SC_rgb_dcmtk_+eb+cy+s2.dcm", "SC_rgb_dcmtk_ebcys2_dcmd.dcm", 2),
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb_dcmtk_ebcys4_dcmd.dcm", 2),
        ("SC_rgb_jpeg.dcm", "SC_rgb_jpeg_dcmd.dcm", 2),
    ],
)
def test_lossy_files_are_near_what_others_decoded(name, original, largest):
    # The originals were decoded by the writers of the files, DCMTK and GDCM.
    decoded = read_image(real(name)).astype(int)
    assert np.abs(decoded - read_image(real(original))).max() <= largest


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_jpeg_of_12_bits(name):
    path = real(name)
    values = values_of(path)
    # GDCM's reader of whole files, which takes another way through it.
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    data = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    expected = np.frombuffer(data, "<u2").reshape(1024, 256)
    np.testing.assert_array_equal(values, expected)
    original = values_of(real("JPEG-LL.dcm"))
    assert np.corrcoef(values.ravel(), original.ravel())[0, 1] > 0.98


def test_a_file_that_ends_within_its_last_frame_gives_the_others():
    short = real("emri_small_jpeg_2k_lossless_too_short.dcm")
    whole = real("emri_small.dcm")
    for index in range(9):
        np.testing.assert_array_equal(
            read_image(short, frame=index), read_image(whole, frame=index)
        )


# A frame and its tags must agree; a codec that ends the process is not called


@pytest.mark.parametrize("tags", [{"Rows": 45}, {"Columns": 30}, {"Rows": 10}])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLosslessSV1])
def test_a_frame_of_another_size_than_its_tags(syntax, tags, tmp_path):
    dataset = pydicom.dcmread(io.BytesIO(encoded(drawn(wave(12)), syntax, tmp_path)))
    dataset.update({name: value for name, value in tags.items()})
    stream = io.BytesIO()
    dataset.save_as(stream)
    announced = f"{tags.get('Rows', 37)} x {tags.get('Columns', 42)} x 1"
    with pytest.raises(ImageReadError) as caught:
        read_image(stream.getvalue())
    assert caught.value.reason == (
        f"its compressed pixels are 37 x 42 x 1, but its tags announce {announced}"
    )


def test_what_a_frame_is_counts_not_what_it_is_called(tmp_path):
    values = wave(12)
    tags = {"BitsStored": 12, "HighBit": 11}
    path = tmp_path / "lossless.dcm"
    path.write_bytes(encoded(drawn(values, **tags), JPEGLosslessSV1, tmp_path))
    frame = frame_of(path)
    assert _dicom_jpeg.jpeg_header(frame).process == 0xC3
    for syntax in (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLSLossless):
        content = wrapped(frame, values, syntax, **tags)
        np.testing.assert_array_equal(values_of(content), values)


def test_remarks_that_gdcm_cannot_bear_are_left_out():
    path = real("SC_rgb_jpeg_gdcm.dcm")
    content = path.read_bytes()
    place = content.index(b"Adobe") + 11  # its colour code
    assert content[place] == 0
    codes = (0, 7, 243)
    # In a process of its own, which an unknown code used to end.
    done = subprocess.run(
        [sys.executable, "-c", READ_WITH_CODES, str(place), *map(str, codes)],
        input=content,
        capture_output=True,
        check=True,
    )
    pixels = np.frombuffer(done.stdout, np.uint8).reshape(len(codes), 100, 100, 3)
    for shown in pixels:
        np.testing.assert_array_equal(shown, read_image(real("SC_rgb.dcm")))


READ_WITH_CODES = """
import sys
from sk_medsiglip.images import read_image
content = sys.stdin.buffer.read()
place = int(sys.argv[1])
for code in sys.argv[2:]:
    changed = content[:place] + bytes([int(code)]) + content[place + 1 :]
    sys.stdout.buffer.write(read_image(changed).tobytes())
"""


def test_headers_of_frames():
    assert _dicom_jpeg.jpeg_header(b"") is None
    assert _dicom_jpeg.jpeg_header(b"\xff\xd8\xff\xd9" + bytes(20)) is None
    assert _dicom_jpeg.jpeg_header(b"\xff\x4f\xff\x51" + bytes(20)) is None  # JPEG 2000
    assert (
        _dicom_jpeg.jpeg_header(b"\xff\xd8" + b"\xff\xe0\xff\xff" + bytes(20)) is None
    )
    start = b"\xff\xd8\xff\xe0\x00\x04AB\xff\xff\xc1\x00\x0b\x0c\x00\x05\x00\x06\x01"
    assert _dicom_jpeg.jpeg_header(start + bytes(8)) == _dicom_jpeg.JPEGHeader(
        0xC1, 12, 5, 6, 1
    )


@pytest.mark.parametrize(
    "name",
    [
        "JPEG-LL.dcm",
        "JPGExtended.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
    ],
)
def test_damaged_frames_are_explained(name, caplog):
    content = real(name).read_bytes()
    assert read_image(content).any()
    for kept in (0.5, 0.9):
        with pytest.raises(ImageReadError) as caught:
            read_image(content[: int(len(content) * kept)])
        assert "its pixels are" in caught.value.reason
        assert "pip install" not in caught.value.hint  # all codecs are here
        assert "export it from there as uncompressed DICOM" in caught.value.hint
    assert not caplog.records  # pydicom would log what it met, tags among it


# Without the codecs


READ_WITHOUT_CODECS = """
import sys
for name in ("gdcm", "pylibjpeg", "openjpeg", "rle", "libjpeg", "jpeg_ls"):
    sys.modules[name] = None
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import read_image
for path in sys.argv[1:]:
    try:
        read_image(path)
    except ImageReadError as error:
        print(error.reason, "|", error.hint)
    else:
        print("read")
"""

#: What Pillow and pydicom alone read, and what they do not.
WITHOUT_CODECS = {
    "SC_rgb_jpeg_dcmtk.dcm": "",
    "MR_small_RLE.dcm": "",
    "MR_small_jp2klossless.dcm": "",
    "US1_J2KI.dcm": "",
    "JPGExtended.dcm": JPEGExtended12Bit.name,
    "JPEG-LL.dcm": JPEGLosslessSV1.name,
    "MR_small_jpeg_ls_lossless.dcm": JPEGLSLossless.name,
    "JPEGLSNearLossless_16.dcm": JPEGLSNearLossless.name,
    "process 14": JPEGLossless.name,
    "htj2k": HTJ2KLossless.name,
    "htj2k rpcl": HTJ2KLosslessRPCL.name,
}


def test_a_missing_codec_names_the_extra_to_install(tmp_path):
    values = wave(12, shape=(5, 6))
    drawn_here = {
        "process 14": encoded(drawn(values), JPEGLossless, tmp_path),
        "htj2k": wrapped(HTJ2K_FRAME, values, HTJ2KLossless),
        "htj2k rpcl": wrapped(HTJ2K_FRAME, values, HTJ2KLosslessRPCL),
    }
    paths = []
    for name in WITHOUT_CODECS:
        path = real(name) if name not in drawn_here else tmp_path / name
        if name in drawn_here:
            path.write_bytes(drawn_here[name])
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", READ_WITHOUT_CODECS, *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = dict(zip(WITHOUT_CODECS, done.stdout.splitlines(), strict=True))
    for name, syntax in WITHOUT_CODECS.items():
        reason, _, hint = lines[name].partition(" | ")
        if not syntax:
            assert reason == "read", name
            continue
        assert reason == (
            f"its pixels are stored as {syntax}, but no codec for it is installed"
        )
        assert hint == 'Install the codecs: pip install "sk-medsiglip[dicom]"'


def test_uncompressed_files_need_no_codec():
    assert not ExplicitVRLittleEndian.is_encapsulated
    assert read_image(drawn(wave(12))).any()


# What a frame is counts, not what the transfer syntax calls it


@pytest.mark.parametrize(
    "syntax", [JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless]
)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_baseline_or_progressive_frame_of_another_syntax(syntax, progressive):
    values = (np.add.outer(np.arange(32), np.arange(40)) * 3).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", progressive=progressive)
    content = wrapped(stream.getvalue(), values, syntax)
    expected = np.asarray(Image.open(stream))
    np.testing.assert_array_equal(read_image(content)[..., 0], expected)


def test_a_jpeg_2000_frame_that_is_called_jpeg():
    values = (np.add.outer(np.arange(32), np.arange(40)) * 3).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG2000", no_jp2=True)
    content = wrapped(stream.getvalue(), values, JPEGLossless)
    np.testing.assert_array_equal(read_image(content)[..., 0], values)


def test_gdcm_prints_nothing(capfd):
    path = real("JPGExtended.dcm")
    frame = bytearray(pydicom.dcmread(path).PixelData)
    frame[len(frame) // 2 :] = b"\xff" * (len(frame) - len(frame) // 2)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(frame)
    stream = io.BytesIO()
    dataset.save_as(stream)
    try:
        read_image(stream.getvalue())
    except ImageReadError:
        pass
    assert capfd.readouterr() == ("", "")
