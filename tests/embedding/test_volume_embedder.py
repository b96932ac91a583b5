"""MedSigLIPVolumeEmbedder: rows of studies, batches across them, warm runs."""

import json
import subprocess
import sys
import textwrap

import forked
import nibabel
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from study_files import (
    EXPORTS,
    REAL,
    dicom,
    enhanced,
    marked,
    noise,
    settle,
    write_series,
)

from sk_medsiglip.exceptions import (
    ImageReadError,
)
from sk_medsiglip.images import Percentiles, Window, read_study


@pytest.fixture
def kinds(tmp_path):
    """One study of every kind, of different lengths."""
    series = write_series(tmp_path / "series", noise(5, 1, np.int16), Modality="MR")
    Image.fromarray(noise(1, 2)[0]).save(tmp_path / "photo.png")
    frames = [Image.fromarray(values) for values in noise(3, 3)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    (tmp_path / "multi.dcm").write_bytes(
        dicom(noise(4, 4, np.uint16), NumberOfFrames=4)
    )
    nifti = nibabel.Nifti1Image(noise(6, 5, np.int16), np.eye(4))
    nifti.to_filename(tmp_path / "volume.nii.gz")
    settle(tmp_path)
    photo = str(tmp_path / "photo.png")
    return {
        "folder": (series, 5),
        "real folder": (str(EXPORTS / "98892001"), 5),
        "photo": (photo, 1),
        "TIFF": (tmp_path / "stack.tif", 3),
        "multi-frame": (tmp_path / "multi.dcm", 4),
        "NIfTI": (tmp_path / "volume.nii.gz", 20),
        "array": (noise(7, 6), 7),
        "colours": (np.repeat(noise(2, 7)[..., None], 3, axis=-1), 2),
        "list": ([photo, noise(1, 8)[0], Image.fromarray(noise(1, 9)[0])], 3),
        "slices": (sorted(series.iterdir()), 5),
        "bytes": ((REAL / "CT_small.dcm").read_bytes(), 1),
    }


# ------------------------------------------------------------------------------- rows


def test_row_is_the_mean_of_the_slices_that_read_study_shows(kinds, volumes):
    rows = volumes.transform([item for item, _ in kinds.values()])
    assert rows.dtype == np.float32
    for row, (item, n) in zip(rows, kinds.values(), strict=True):
        slices = read_study(item)
        assert len(slices) == n
        each = volumes.embedder.transform(slices)
        np.testing.assert_allclose(row, each.mean(axis=0), atol=1e-5)
    assert len(np.unique(rows.round(4), axis=0)) == len(kinds) - 1  # series = slices


@pytest.mark.parametrize("n_jobs", [None, 4])
@pytest.mark.parametrize("n_slices", [1, 2, 4, None])
def test_rows_do_not_depend_on_company_or_threads(kinds, volumes, n_jobs, n_slices):
    volumes.set_params(embedder__n_jobs=n_jobs, n_slices=n_slices)
    items = [item for item, _ in kinds.values()]
    together = volumes.transform(items)
    volumes.set_params(embedder__cache=False)
    np.testing.assert_allclose(
        np.concatenate([volumes.transform([item]) for item in reversed(items)])[::-1],
        together,
        atol=1e-5,
    )


def test_plane_and_series_and_intensity_reach_the_reader(kinds, volumes):
    item = kinds["NIfTI"][0]
    for options in ({"plane": "coronal"}, {"plane": "sagittal", "n_slices": 2}):
        expected = volumes.embedder.transform(read_study(item, **options)).mean(axis=0)
        [row] = clone(volumes).set_params(**options).transform([item])
        np.testing.assert_allclose(row, expected, atol=1e-5)
    export = EXPORTS / "77654033"
    [row] = clone(volumes).set_params(series=1).transform([export])
    expected = volumes.embedder.transform(read_study(export, series=1)).mean(axis=0)
    np.testing.assert_allclose(row, expected, atol=1e-5)
    lung = {"intensity": Window(-600, 1500)}
    embedder = clone(volumes.embedder).set_params(**lung)
    [row] = clone(volumes).set_params(embedder=embedder, series=1).transform([export])
    expected = volumes.embedder.transform(read_study(export, series=1, **lung))
    np.testing.assert_allclose(row, expected.mean(axis=0), atol=1e-5)


# -------------------------------------------------------------------- batches, chunks


def test_batches_run_across_studies(volumes, passes):
    studies = [noise(n, seed) for seed, n in enumerate((3, 1, 5, 2, 7, 4, 6, 1))]
    volumes.transform(studies)
    assert passes == [8, 8, 8, 5]  # 29 slices, not eight studies one by one


def test_work_goes_in_chunks_of_bounded_size(volumes, passes, monkeypatch):
    whole = clone(volumes).set_params(embedder__cache=False)
    studies = [noise(n, seed=n) for n in (3, 1, 5, 2, 7, 4, 6, 9)]
    expected = whole.transform(studies)
    passes.clear()
    monkeypatch.setattr("sk_medsiglip.embedding._volume_work._CHUNK_SLICES", 8)
    np.testing.assert_allclose(volumes.transform(studies), expected, atol=1e-5)
    assert passes == [8, 1, 8, 1, 8, 2, 8, 1]  # of 9, 9, 10 and 9 slices
    passes.clear()
    np.testing.assert_allclose(volumes.transform(studies), expected, atol=1e-5)
    assert passes == []


def test_slices_of_one_picture_are_computed_once(volumes, passes):
    volume = noise(4)
    rows = volumes.transform([volume, volume[::-1], volume[:2], list(volume)])
    assert sum(passes) == 4
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    np.testing.assert_array_equal(rows[0], rows[3])


# ------------------------------------------------------------------------- warm runs


def test_a_study_that_was_seen_needs_no_pass(kinds, volumes, passes):
    items = [item for item, _ in kinds.values()]
    rows = volumes.transform(items)
    assert passes
    passes.clear()
    np.testing.assert_array_equal(volumes.transform(items), rows)
    np.testing.assert_array_equal(clone(volumes).fit_transform(items), rows)
    assert passes == []


def test_warm_run_opens_no_file_of_a_study(kinds, checkpoint, tmp_path):
    """Count in a child process what Python opens, and that no model is loaded."""
    items = [
        str(item)
        for item, _ in (kinds[name] for name in ("folder", "TIFF", "NIfTI", "photo"))
    ]
    script = f"""
        import json, sys
        from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPVolumeEmbedder
        items = {[*items, sorted(map(str, kinds["slices"][0]))]!r}
        opened = []
        def note(event, args):
            if event == "open" and str(args[0]).startswith({str(tmp_path)!r}):
                opened.append(str(args[0]))
        embedder = MedSigLIPEmbedder({str(checkpoint)!r}, device="cpu",
                                     cache={str(tmp_path / "store")!r})
        sys.addaudithook(note)
        rows = MedSigLIPVolumeEmbedder(embedder).transform(items)
        mine = [name for name in opened if "/store" not in name]
        print(json.dumps([rows.tolist(), mine, "torch" in sys.modules]))
    """
    code = textwrap.dedent(script)
    done = forked.run_code(code)
    assert done.returncode == 0, done.stderr
    cold, opened, _ = json.loads(done.stdout)
    # In an interpreter of its own, where nothing is imported yet.
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    warm, reopened, has_torch = json.loads(done.stdout)
    assert warm == cold
    assert len(opened) > 10
    assert reopened == []
    assert not has_torch


@pytest.mark.parametrize("change", ["rewrite", "add", "remove"])
def test_a_changed_study_is_read_again(tmp_path, volumes, passes, change):
    folder = write_series(tmp_path / "series", noise(5, 1, np.int16), Modality="MR")
    settle(folder)
    [before] = volumes.transform([folder])
    passes.clear()
    first = sorted(folder.iterdir())[0]
    if change == "rewrite":
        write_series(folder, noise(5, 2, np.int16), Modality="MR")
    elif change == "add":
        (folder / "new").write_bytes(dicom(noise(1, 3, np.int16)[0], InstanceNumber=9))
        volumes.set_params(series=0)
    else:
        first.unlink()
    settle(folder)
    [after] = volumes.transform([folder])
    expected = read_study(folder, series=volumes.series)
    expected = volumes.embedder.transform(expected).mean(axis=0)
    np.testing.assert_allclose(after, expected, atol=1e-5)
    if change != "add":
        assert np.abs(after - before).max() > 1e-4


@pytest.mark.parametrize(
    "setting",
    [
        {"n_slices": 2},
        {"embedder__intensity": Percentiles(20, 80)},
        {"embedder__pad": True},
        {"embedder__resize": "processor"},
    ],
)
def test_settings_do_not_share_studies(tmp_path, volumes, setting):
    folder = write_series(tmp_path / "series", noise(5, 1, np.int16), Modality="MR")
    settle(folder)
    volumes.transform([folder])
    volumes.set_params(**setting)
    stored = volumes.transform([folder])
    fresh = clone(volumes).set_params(embedder__cache=False).transform([folder])
    np.testing.assert_allclose(stored, fresh, atol=1e-5)


def test_a_folder_and_a_list_of_its_files_are_two_studies(tmp_path, volumes):
    study = tmp_path / "study"
    write_series(study / "a", noise(3, 1, np.int16), SeriesNumber=1)
    other = {"SeriesInstanceUID": "1.2.9", "SeriesNumber": 2}
    write_series(study / "b", noise(4, 2, np.int16), **other)
    settle(study)
    files = sorted(path for path in study.rglob("*") if path.is_file())
    volumes.transform([[str(path) for path in files]])
    with pytest.raises(ImageReadError, match="2 series"):
        volumes.transform([study])


def test_rows_that_were_removed_are_computed_again(kinds, volumes, store, passes):
    items = [item for item, _ in kinds.values()]
    rows = volumes.transform(items)
    n_rows = len(store)
    store.prune(max_bytes=n_rows * 32 * 4 // 2)
    assert len(store) < n_rows
    passes.clear()
    np.testing.assert_allclose(volumes.transform(items), rows, atol=1e-5)
    assert passes


def test_without_a_store(kinds, volumes, passes):
    volumes.set_params(embedder__cache=False)
    item = kinds["folder"][0]
    np.testing.assert_array_equal(
        volumes.transform([item, item]), volumes.transform([item, item])
    )
    assert sum(passes) == 10


def test_enhanced_frames_are_pooled(volumes):
    content = dicom(marked(), **enhanced(range(7)))
    [row] = volumes.transform([content])
    expected = volumes.embedder.transform(read_study(content)).mean(axis=0)
    np.testing.assert_allclose(row, expected, atol=1e-5)
