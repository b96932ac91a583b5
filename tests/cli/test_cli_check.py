"""``check_images`` on whole collections, and the command ``sk-medsiglip check``."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import forked
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from sk_medsiglip.cli import app
from sk_medsiglip.exceptions import SkMedSiglipWarning
from sk_medsiglip.images import Window, check_images

COLUMNS = ["row", "path", "readable", "reason", "hint", "format", "modality"]
COLUMNS += ["height", "width", "dtype", "low", "high", "duplicate_of"]


def real(name):
    from pydicom.data import get_testdata_file

    return Path(get_testdata_file(name, download=False))


# Found while pydicom can be imported.
CT = real("CT_small.dcm")


def run(*arguments):
    return CliRunner().invoke(app, ["check", *(str(a) for a in arguments)])


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 200, (20, 30), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, picture):
    """Six readable images, among them two copies, four bad ones, and other files."""
    folder = tmp_path_factory.mktemp("collection")
    Image.fromarray(picture).save(folder / "a.png")
    Image.fromarray(picture).save(folder / "copy of a.tiff")
    Image.fromarray(np.stack([picture] * 3, axis=-1)).save(folder / "other.bmp")
    shutil.copy(real("CT_small.dcm"), folder / "ct.dcm")
    shutil.copy(real("MR_small.dcm"), folder / "IM0001")
    (folder / "sub").mkdir()
    Image.fromarray(picture.T).save(folder / "sub" / "turned.png")
    whole = (folder / "a.png").read_bytes()
    for name in ("cut 1.png", "cut 2.png"):
        (folder / name).write_bytes(whole[:200])
    (folder / "empty.jpg").touch()
    shutil.copy(real("reportsi.dcm"), folder / "report.dcm")
    for name in ("Thumbs.db", "notes.txt", "labels.txt", ".DS_Store", "README"):
        (folder / name).write_text("not an image")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    return folder


# ------------------------------------------------------------------------ check_images


def test_the_grey_range_is_in_the_unit_of_the_image(picture):
    table = check_images([real("CT_small.dcm"), picture, picture * np.uint16(16)])
    assert table.dtype.tolist() == ["int16", "uint8", "uint16"]
    # The file's own rescale: stored values minus 1024.
    assert table.low.tolist() == [-896, picture.min(), 16 * int(picture.min())]
    assert table.high.tolist() == [1167, picture.max(), 16 * int(picture.max())]


def test_the_grey_range_leaves_padding_out(tmp_path):
    import pydicom

    dataset = pydicom.dcmread(real("CT_small.dcm"))
    values = dataset.pixel_array.copy()
    values[:40] = -2000
    dataset.PixelData = values.tobytes()
    dataset.PixelPaddingValue = -2000
    dataset.save_as(tmp_path / "padded.dcm")
    (low,) = check_images([tmp_path / "padded.dcm"]).low
    assert low == values[40:].min() - 1024
    del dataset.PixelPaddingValue
    dataset.save_as(tmp_path / "unpadded.dcm")
    assert check_images([tmp_path / "unpadded.dcm"]).low[0] == -2000 - 1024


def test_copies_are_found_by_their_pixels(picture, tmp_path):
    for name in ("a.png", "b.tiff", "c.webp"):
        Image.fromarray(picture).save(tmp_path / name, lossless=True)
    other = picture.copy()
    other[0, 0] ^= 1
    X = [other, *sorted(tmp_path.iterdir()), picture, picture.T, other, b"", b""]
    table = check_images(X, n_jobs=4)
    missing = pd.NA
    first = [missing, missing, 1, 1, 1, missing, 0, missing, missing]
    assert table.duplicate_of.tolist() == first
    kept = pd.Series(X)[table.readable & table.duplicate_of.isna()]
    assert kept.index.tolist() == [0, 1, 5]


def test_mixed_depths_of_16_bit_pictures_are_noticed(picture, tmp_path):
    deep = picture.astype(np.uint16)
    X = [deep * 16, deep * 200, deep * 300, deep]
    X[0][0, 0] = 4095
    with pytest.warns(SkMedSiglipWarning) as warned:
        table = check_images(X)
    assert str(warned[0].message) == (
        "16-bit images of this collection are shown on different scales: 1 with "
        "white at 255, 1 with white at 4095, 2 with white at 65535. With "
        'intensity="auto", white is the smallest of 255, 4095 and 65535 that the image '
        "does not exceed. If they come from one source, fix the scale: "
        "intensity=Window(center=32767.5, width=65535)."
    )
    assert warned[0].filename == __file__
    assert table.high[0] == 4095
    # Warnings are errors here: these say nothing.
    check_images(X[1:3])
    check_images([X[0], picture, real("MR_small.dcm")])
    check_images(X, intensity=Window(center=32767.5, width=65535))


def test_a_library_for_some_of_the_files_is_their_failure(monkeypatch, picture):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    table = check_images([CT, picture])
    assert table.readable.tolist() == [False, True]
    assert table.reason[0] == "the library that reads it is not installed"
    assert 'pip install "sk-medsiglip[dicom]"' in table.hint[0]


def test_memory_holds_no_image_that_was_read(tmp_path):
    tracemalloc = pytest.importorskip("tracemalloc")
    X = []
    for i in range(40):
        X.append(tmp_path / f"{i}.png")
        Image.fromarray(np.full((500, 500, 3), i, np.uint8)).save(X[-1])
    check_images(X[:2])  # what is imported on the way
    tracemalloc.start()
    try:
        check_images(X)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 500 * 500 * 3


# ------------------------------------------------------------------------- the command


def test_a_folder_is_summed_up(folder, tmp_path):
    out = tmp_path / "table.csv"
    result = run(folder, "--output", out)
    assert result.exit_code == 1, result.output
    text = result.stdout
    assert "6 files in the folder are left out, by their name or kind: " in text
    for kind in ("2 .txt", "1 .db", "1 hidden", "1 without suffix", "1 broken link"):
        assert kind in text
    assert "10 images: 6 can be read." in text
    rows = [line.split() for line in text.splitlines()]
    assert ["DICOM", "CT", "1", "128", "128", "-896", "to", "1167"] in rows
    png = next(row for row in rows if row[:1] == ["PNG"])
    assert png[1:8] == ["2", "20", "to", "30", "20", "to", "30"]
    assert "Copies of others, pixel by pixel: 2 images" in text
    assert "copy of a.tiff = a.png" in text
    assert "Not readable: 4 images." in text
    assert "2 x it is damaged or cut short" in text
    assert "1 x the file is empty" in text
    assert "1 x it holds no pixels: it is a Basic Text SR Storage object" in text
    assert "cut 1.png" in text
    table = pd.read_csv(out)
    assert list(table.columns) == COLUMNS
    assert len(table) == 10
    by_path = table.set_index("path")
    assert by_path.loc["copy of a.tiff", "duplicate_of"] == by_path.loc["a.png", "row"]
    assert by_path.loc["IM0001", ["format", "modality"]].tolist() == ["DICOM", "MR"]
    assert by_path.loc["sub/turned.png", ["height", "width"]].tolist() == [30, 20]
    assert by_path.loc["empty.jpg", "reason"] == "the file is empty"
    assert by_path.readable.sum() == 6


def test_nothing_of_a_patient_is_told(folder, tmp_path):
    import pydicom

    out = tmp_path / "table.csv"
    result = run(folder, "--output", out)
    told = result.output + out.read_text()
    for name in ("CT_small.dcm", "MR_small.dcm", "reportsi.dcm"):
        dataset = pydicom.dcmread(real(name))
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate"):
            value = str(dataset.get(keyword, ""))
            assert not value or value not in told


def test_all_is_well(folder, tmp_path):
    (tmp_path / "images").mkdir()
    shutil.copy(folder / "a.png", tmp_path / "images")
    result = run(tmp_path / "images")
    assert result.exit_code == 0, result.output
    assert "1 image: 1 can be read." in result.stdout
    assert "All images can be read." in result.stdout
    assert "left out" not in result.stdout
    assert "Copies" not in result.stdout


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_csv_file_keeps_its_paths_and_their_order(folder, tmp_path, suffix):
    source = folder / "list.csv"
    paths = ["sub/turned.png", "no such file.png", str(folder / "a.png")]
    pd.DataFrame({"scan": paths, "label": [1, 0, 1]}).to_csv(source, index=False)
    out = tmp_path / f"table{suffix}"
    result = run(source, "--path-column", "scan", "-o", out, "--exit-zero")
    source.unlink()
    assert result.exit_code == 0, result.output
    assert "left out" not in result.stdout
    if suffix == ".parquet":
        table = pd.read_parquet(out)
    else:
        table = pd.read_csv(out, sep="\t" if suffix == ".tsv" else ",")
    assert list(table.columns) == COLUMNS
    assert table.path.tolist() == paths
    assert table.readable.tolist() == [True, False, True]
    assert table.height.isna().tolist() == [False, True, False]
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name]


def test_settings_reach_the_reader(tmp_path):
    shutil.copy(real("rtdose.dcm"), tmp_path / "frames.dcm")
    assert run(tmp_path).exit_code == 1
    for frame in ("0", "14", "middle"):
        assert run(tmp_path, "--frame", frame).exit_code == 0
    assert "frame=15 was requested" in run(tmp_path, "--frame", "15").stdout
    result = run(tmp_path, "--frame", "0", "--max-pixels", "99")
    assert "more than max_pixels=99" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no such folder"], "no such folder does not exist"),
        (["{folder}", "-o", "table.txt"], "ends in '.txt'"),
        (["{folder}", "-o", "no/such/table.csv"], "does not exist; make it first"),
        (["{folder}", "-o", "{folder}/ct.dcm.csv"], "Add --overwrite"),
        (["{folder}", "--frame", "last"], 'frame must be None, "middle" or an index'),
        (["{folder}", "--frame", "-1"], 'frame must be None, "middle" or an index'),
        (["{folder}", "--intensity", "soft"], "intensity must be one of"),
        (["{folder}", "--n-jobs", "0"], "--n-jobs"),
        (["{folder}/a.png"], "single image"),
    ],
)
def test_impossible_commands_end_in_one_sentence(folder, arguments, message):
    (folder / "ct.dcm.csv").write_text("kept")
    result = run(*(argument.format(folder=folder) for argument in arguments))
    assert (folder / "ct.dcm.csv").read_text() == "kept"
    (folder / "ct.dcm.csv").unlink()
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_an_earlier_table_is_replaced_on_demand(folder, tmp_path):
    out = tmp_path / "table.csv"
    out.write_text("old")
    assert run(folder, "-o", out).exit_code == 2
    assert out.read_text() == "old"
    assert run(folder, "-o", out, "--overwrite").exit_code == 1
    assert pd.read_csv(out).shape == (10, len(COLUMNS))


def test_many_reasons_are_grouped_though_their_numbers_differ(tmp_path):
    for i in range(1, 6):
        values = np.full((3, 3), 1000 * i, np.int32)
        Image.fromarray(values).save(tmp_path / f"{i}.tiff")
    text = run(tmp_path).stdout
    assert "5 x its values are int32 from 1000 to 1000" in text
    assert ", for one" in text
    assert "and 2 more" in text


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX permissions")
def test_files_that_may_not_be_read_are_failures_of_many(picture):
    script = (
        "import os, sys\n"
        "from sk_medsiglip.cli import app\n"
        # Modules are imported on the way, which may be for root only too.
        "app(['check', sys.argv[1], '--exit-zero'], standalone_mode=False)\n"
        "print('then', flush=True)\n"
        "if os.getuid() == 0:\n"  # root may read everything
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "app(['check', sys.argv[2]])\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in ("warm", "cold"):
            os.mkdir(f"{folder}/{name}", 0o755)
            Image.fromarray(picture).save(f"{folder}/{name}/a.png")
        for name in ("b.png", "IM0001"):
            secret = Path(folder, "cold", name)
            shutil.copy(real("MR_small.dcm"), secret)
            secret.chmod(0)
        done = forked.run_code(script, f"{folder}/warm", f"{folder}/cold")
    text = done.stdout.partition("then")[2]
    assert "3 images: 1 can be read." in text, done.stderr
    assert "2 x permission to read it was denied" in text
    assert done.returncode == 1


def test_the_console_script_in_a_process_of_its_own(folder, tmp_path):
    script = Path(sysconfig.get_path("scripts")) / "sk-medsiglip"
    command = [str(script)] if script.exists() else [sys.executable, "-m"]
    if not script.exists():
        command.append("sk_medsiglip.cli")
    out = tmp_path / "table.csv"
    done = subprocess.run(
        [*command, "check", str(folder), "--output", str(out)],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 1, done.stderr
    assert "10 images: 6 can be read." in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    assert pd.read_csv(out).readable.sum() == 6
