"""Phantoms, writing them to disk, and fetching PneumoniaMNIST."""

import os
import re
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from pydicom.pixels import apply_voi_lut
from test_datasets_medmnist import publish

from sk_medsiglip.datasets import (
    fetch_pneumonia_mnist,
    make_chest_phantoms,
    write_phantoms,
)
from sk_medsiglip.exceptions import DatasetError

FINDINGS = [
    "cardiomegaly",
    "effusion",
    "pneumothorax",
    "consolidation",
    "nodule",
    "device",
]


@pytest.fixture(scope="module")
def phantoms():
    return make_chest_phantoms(300, random_state=0, return_masks=True)


# --- phantoms: shape of the result ------------------------------------------------


def test_bunch_has_what_sklearn_users_expect(phantoms):
    assert phantoms.images.shape == (300, 128, 128)
    assert phantoms.images.dtype == np.uint8
    assert phantoms.target.shape == (300, 6)
    assert set(np.unique(phantoms.target)) == {0, 1}
    assert phantoms.target_names == FINDINGS
    assert len(phantoms.captions) == len(phantoms.groups) == 300
    assert len(phantoms.facts) == 300
    assert "not patients" in phantoms.DESCR


def test_same_seed_gives_same_phantoms_and_another_seed_others():
    one, two = (make_chest_phantoms(8, random_state=3) for _ in range(2))
    other = make_chest_phantoms(8, random_state=4)
    assert_array_equal(one.images, two.images)
    assert one.captions == two.captions
    assert not np.array_equal(one.images, other.images)


def test_more_samples_only_add_at_the_end():
    few = make_chest_phantoms(5, random_state=1)
    many = make_chest_phantoms(12, random_state=1)
    assert_array_equal(few.images, many.images[:5])
    assert_array_equal(few.groups, many.groups[:5])


@pytest.mark.parametrize(
    "make_state",
    [lambda: np.random.RandomState(5), lambda: np.random.default_rng(5)],
    ids=["RandomState", "Generator"],
)
def test_random_state_objects_are_deterministic_and_advance(make_state):
    state = make_state()
    first = make_chest_phantoms(2, random_state=state).images
    second = make_chest_phantoms(2, random_state=state).images
    assert_array_equal(first, make_chest_phantoms(2, random_state=make_state()).images)
    assert not np.array_equal(first, second)


def test_no_seed_gives_new_phantoms():
    assert not np.array_equal(
        make_chest_phantoms(2).images, make_chest_phantoms(2).images
    )


def test_uint16_is_the_same_picture():
    small = make_chest_phantoms(4, random_state=2)
    deep = make_chest_phantoms(4, random_state=2, dtype="uint16")
    assert deep.images.dtype == np.uint16
    assert np.abs(deep.images / 257 - small.images).max() <= 1
    assert len(np.unique(deep.images)) > 256


@pytest.mark.parametrize("size", [64, 200])
def test_other_sizes_draw_the_same_patients(size):
    at_size = make_chest_phantoms(4, random_state=2, image_size=size)
    assert at_size.images.shape == (4, size, size)
    assert_array_equal(at_size.target, make_chest_phantoms(4, random_state=2).target)


def test_chosen_findings_are_the_columns_and_nothing_else_is_drawn():
    chosen = make_chest_phantoms(
        60, findings=["nodule", "effusion"], random_state=0, views_per_patient=1
    )
    assert chosen.target_names == ["nodule", "effusion"]
    assert chosen.target.shape == (60, 2)
    assert chosen.target.any(axis=0).all()
    assert (
        (chosen.facts[["cardiomegaly", "pneumothorax", "device"]] == 0).to_numpy().all()
    )


def test_prevalence_moves_the_share_of_ill_patients():
    rare, common = (
        make_chest_phantoms(
            200, prevalence=p, random_state=0, views_per_patient=1, image_size=16
        ).target.mean()
        for p in (0.05, 0.6)
    )
    assert rare < 0.1
    assert 0.5 < common < 0.7


# --- phantoms: patients -----------------------------------------------------------


def test_views_of_a_patient_share_findings_and_are_different_pictures(phantoms):
    table = pd.DataFrame(phantoms.target).assign(patient=phantoms.groups)
    assert (table.groupby("patient").nunique() == 1).to_numpy().all()
    facts = phantoms.facts.assign(patient=phantoms.groups)
    assert (facts.groupby("patient").nunique() == 1).to_numpy().all()
    counts = table["patient"].value_counts()
    # The last patient may be cut off.
    assert set(counts.iloc[:-1]) <= {1, 2, 3}
    assert {1, 2, 3} <= set(counts)
    assert len({image.tobytes() for image in phantoms.images}) == 300


def test_fixed_number_of_views():
    groups = make_chest_phantoms(7, views_per_patient=3, random_state=0).groups
    assert pd.Series(groups).value_counts(sort=False).tolist() == [3, 3, 1]
    assert groups[0] == "PHANTOM0001"


# --- phantoms: findings lie where the masks say -----------------------------------


def test_masks_are_where_the_finding_is_and_nowhere_else(phantoms):
    marked = phantoms.masks.any(axis=(2, 3))
    assert not marked[phantoms.target == 0].any()
    # Little of a finding may show, but of nearly every one something must.
    assert marked[phantoms.target == 1].mean() > 0.97


@pytest.mark.parametrize("finding", ["effusion", "pneumothorax", "nodule"])
def test_sided_findings_lie_on_their_side(phantoms, finding):
    column = phantoms.target_names.index(finding)
    facts = phantoms.facts
    for side, half in (("left", np.s_[70:]), ("right", np.s_[:58])):
        other = {"left": "right", "right": "left"}[side]
        rows = np.flatnonzero(
            (facts[f"{finding}_{side}"] == 1) & (facts[f"{finding}_{other}"] == 0)
        )
        masks = phantoms.masks[rows, column]
        shares = masks[:, :, half].sum((1, 2)) / np.maximum(masks.sum((1, 2)), 1)
        assert np.median(shares) > 0.9


def test_a_nodule_is_brighter_than_its_surroundings(phantoms):
    column = phantoms.target_names.index("nodule")
    rows = np.flatnonzero(phantoms.facts["nodule"] == 1)
    differences = []
    for row in rows:
        mask = phantoms.masks[row, column]
        y, x = (int(at.mean()) for at in np.nonzero(mask))
        window = np.s_[max(0, y - 10) : y + 11, max(0, x - 10) : x + 11]
        near, inside = phantoms.images[row][window], mask[window]
        differences.append(near[inside].mean() - near[~inside].mean())
    assert np.mean(np.array(differences) > 0) > 0.9


def test_cardiomegaly_widens_the_heart(phantoms):
    column = phantoms.target_names.index("cardiomegaly")
    facts = phantoms.facts
    severe = phantoms.masks[facts["cardiomegaly_severe"] == 1, column]
    mild = phantoms.masks[facts["cardiomegaly_mild"] == 1, column]
    widths = [mask.any(axis=1).sum(axis=1).mean() for mask in (severe, mild)]
    assert widths[0] > 1.05 * widths[1]


def test_masks_only_on_demand():
    assert "masks" not in make_chest_phantoms(2, random_state=0)


# --- phantoms: captions -----------------------------------------------------------

SAYS = {
    "cardiomegaly": r"heart is (\w+ )?enlarged",
    "effusion": r"there is a .*pleural effusion",
    "pneumothorax": r"there is a .*pneumothorax",
    "consolidation": r"there is a consolidation",
    "nodule": r"there is a nodule",
    "device": r"is in place",
}


@pytest.mark.parametrize("finding", FINDINGS)
def test_captions_say_only_what_the_labels_hold(phantoms, finding):
    column = phantoms.target_names.index(finding)
    said = denied = 0
    for caption, present in zip(
        phantoms.captions, phantoms.target[:, column], strict=True
    ):
        for sentence in caption.lower().split("."):
            if re.search(r"\b(no|not)\b", sentence):
                if finding in sentence or (
                    finding == "cardiomegaly" and "heart" in sentence
                ):
                    assert not present
                    denied += 1
            elif re.search(SAYS[finding], sentence):
                assert present
                said += 1
    assert said
    assert denied


def test_captions_name_the_right_side_and_zone(phantoms):
    facts = phantoms.facts
    for row, caption in enumerate(phantoms.captions):
        found = re.search(r"nodule in the (left|right) (upper|lower) zone", caption)
        if found:
            side, zone = found.groups()
            assert facts[f"nodule_{side}"][row] == 1
            assert facts[f"nodule_{zone}"][row] == 1


def test_barely_visible_findings_are_labelled_but_not_named(phantoms):
    for column, finding in enumerate(FINDINGS):
        subtle = (phantoms.facts[f"{finding}_sign"] == 1).to_numpy()
        assert subtle.any()
        assert (phantoms.target[subtle, column] == 1).all()
        assert (phantoms.facts[finding][subtle] == -1).all()


def test_normal_captions_belong_to_phantoms_without_finding(phantoms):
    normal = [caption.startswith("Normal") for caption in phantoms.captions]
    assert_array_equal(normal, phantoms.target.sum(axis=1) == 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0}, "n_samples"),
        ({"findings": ["flu"]}, "findings must be distinct names"),
        ({"findings": []}, "findings must be distinct names"),
        ({"views_per_patient": (3, 1)}, "views_per_patient"),
        ({"dtype": "float32"}, "dtype"),
        ({"image_size": 4}, "image_size"),
        ({"prevalence": 1.5}, "prevalence"),
        ({"noise": (0.2, 0.1)}, "noise"),
        ({"random_state": -1}, "random_state"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_chest_phantoms(**{"n_samples": 2, **arguments})


# --- writing ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_and_dicom_show_the_same_picture(tmp_path, dtype):
    made = make_chest_phantoms(8, random_state=0, dtype=dtype)
    as_png = write_phantoms(made, tmp_path / "png", formats="png")
    as_dicom = write_phantoms(made, tmp_path / "dicom", formats="dicom")
    kinds = set()
    for row in range(8):
        picture = np.asarray(Image.open(tmp_path / "png" / as_png["path"][row]))
        assert picture.dtype == np.uint8
        data = pydicom.dcmread(tmp_path / "dicom" / as_dicom["path"][row])
        shown = apply_voi_lut(data.pixel_array, data).astype(float)
        shown *= 255 / 65_535
        if data.PhotometricInterpretation == "MONOCHROME1":
            shown = 255 - shown
        kinds.add(data.PhotometricInterpretation)
        assert np.abs(shown - picture).max() <= 1
    assert kinds == {"MONOCHROME1", "MONOCHROME2"}


def test_dicom_files_are_sound_and_anonymous(tmp_path):
    made = make_chest_phantoms(3, random_state=0, views_per_patient=3)
    labels = write_phantoms(made, tmp_path, formats=["dicom"])
    instances = set()
    for path in labels["path"]:
        data = pydicom.dcmread(tmp_path / path)
        assert data.Modality == "CR"
        assert data.BitsStored == 16
        assert data.PatientID == "PHANTOM0001"
        assert str(data.PatientName) == ""
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
        instances.add(data.SOPInstanceUID)
    assert len(instances) == 3


def test_labels_csv_holds_the_bunch(tmp_path):
    made = make_chest_phantoms(9, random_state=0)
    labels = write_phantoms(made, tmp_path / "new" / "folder")
    table = pd.read_csv(tmp_path / "new" / "folder" / "labels.csv")
    assert list(table.columns) == ["path", *FINDINGS, "patient", "caption"]
    assert_array_equal(table[FINDINGS], made.target)
    assert table["patient"].tolist() == made.groups.tolist()
    assert table["caption"].tolist() == made.captions
    assert table["path"].tolist() == labels["path"].tolist()
    assert table["path"].is_unique
    assert {Path(path).suffix for path in table["path"]} == {".png", ".dcm"}
    for path in table["path"]:
        assert (tmp_path / "new" / "folder" / path).is_file()


def test_writing_twice_gives_the_same_bytes(tmp_path):
    made = make_chest_phantoms(4, random_state=0)
    for name in ("a", "b"):
        write_phantoms(made, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_unknown_format(tmp_path):
    made = make_chest_phantoms(1, random_state=0)
    with pytest.raises(ValueError, match="formats"):
        write_phantoms(made, tmp_path, formats="jpeg")


# --- PneumoniaMNIST ---------------------------------------------------------------


class _Server:
    """A real HTTP server on a folder; ``fail_first`` answers begin with errors."""

    def __init__(self, folder):
        self.fail_first = 0
        self.cut_at = None
        self.garbles = 0
        self.requests = 0
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self):
                outer.requests += 1
                if outer.requests <= outer.fail_first:
                    self.send_error(503)
                elif outer.requests <= outer.garbles:
                    self.wfile.write(b"no HTTP\r\n\r\n")
                elif outer.cut_at is not None:
                    body = (folder / self.path.lstrip("/")).read_bytes()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body[: outer.cut_at])
                else:
                    super().do_GET()

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Handler, directory=folder)
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}/pneumoniamnist.npz"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def _write_archive(path, n_train=6):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, count in (("train", n_train), ("val", 2), ("test", 4)):
        arrays[f"{name}_images"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{name}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez_compressed(path, **arrays)


@pytest.fixture
def server(tmp_path, monkeypatch):
    folder = tmp_path / "served"
    folder.mkdir()
    archive = folder / "pneumoniamnist.npz"
    _write_archive(archive)
    server = _Server(folder)
    server.archive = archive
    monkeypatch.setenv("SK_MEDSIGLIP_PNEUMONIA_MNIST_URL", server.url)
    # The official file cannot be here; this one stands for it, checksum and all.
    publish(monkeypatch, archive, "pneumoniamnist", 28)
    yield server
    server.close()


def test_fetch_downloads_once(server, tmp_path):
    home = tmp_path / "home"
    bunch = fetch_pneumonia_mnist(home, subset="test")
    assert bunch.images.shape == (4, 28, 28)
    assert bunch.images.dtype == np.uint8
    assert bunch.target.tolist() == [0, 1, 0, 1]
    assert bunch.target_names == ["normal", "pneumonia"]
    assert "CC BY 4.0" in bunch.DESCR
    assert "the official one" in bunch.DESCR
    fetch_pneumonia_mnist(home)
    assert server.requests == 1
    assert [path.name for path in home.iterdir()] == ["pneumoniamnist.npz"]


def test_fetch_all_joins_the_splits(server, tmp_path):
    bunch = fetch_pneumonia_mnist(tmp_path / "home", subset="all")
    assert bunch.subset.tolist() == ["train"] * 6 + ["val"] * 2 + ["test"] * 4


def test_fetch_return_x_y_and_environment_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SK_MEDSIGLIP_DATA", str(tmp_path / "by-environment"))
    images, target = fetch_pneumonia_mnist(return_X_y=True)
    assert len(images) == len(target) == 6
    assert (tmp_path / "by-environment" / "pneumoniamnist.npz").is_file()


def test_fetch_tries_again(server, tmp_path):
    server.fail_first = 2
    fetch_pneumonia_mnist(tmp_path / "home", n_retries=2, delay=0)
    assert server.requests == 3


def test_fetch_gives_up_with_the_servers_answer(server, tmp_path):
    server.fail_first = 9
    with pytest.raises(DatasetError, match="503.*2 times"):
        fetch_pneumonia_mnist(tmp_path / "home", n_retries=1, delay=0)
    assert list((tmp_path / "home").iterdir()) == []


def test_fetch_tries_again_after_an_answer_that_is_none(server, tmp_path):
    server.garbles = 1
    with pytest.raises(DatasetError, match="HTTP.*1 times"):
        fetch_pneumonia_mnist(tmp_path / "home", n_retries=0)
    server.garbles = 2
    fetch_pneumonia_mnist(tmp_path / "home", n_retries=1, delay=0)
    assert server.requests == 3


@pytest.mark.skipif(os.name == "nt", reason="modes are not of Windows")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_others_may_read_what_the_umask_lets_them(server, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        fetch_pneumonia_mnist(tmp_path / "home")
    finally:
        os.umask(before)
    file = tmp_path / "home" / "pneumoniamnist.npz"
    assert file.stat().st_mode & 0o777 == mode


def test_fetch_refuses_a_wrong_file(server, tmp_path):
    _write_archive(server.archive, n_train=8)
    with pytest.raises(DatasetError, match="checksum"):
        fetch_pneumonia_mnist(tmp_path / "home", n_retries=0)
    assert list((tmp_path / "home").iterdir()) == []


def test_fetch_refuses_half_a_file(server, tmp_path):
    server.cut_at = 1000
    with pytest.raises(DatasetError, match="downloaded"):
        fetch_pneumonia_mnist(tmp_path / "home", n_retries=0)
    assert list((tmp_path / "home").iterdir()) == []


def test_fetch_without_network_says_what_to_do(server, tmp_path):
    server.close()
    with pytest.raises(DatasetError, match="no connection"):
        fetch_pneumonia_mnist(tmp_path / "home", n_retries=1, delay=0)


def test_fetch_missing_without_download(tmp_path):
    with pytest.raises(DatasetError, match="download_if_missing=True"):
        fetch_pneumonia_mnist(tmp_path, download_if_missing=False)


def test_fetch_takes_the_users_own_file_and_says_so(tmp_path):
    _write_archive(tmp_path / "pneumoniamnist.npz", n_train=3)
    bunch = fetch_pneumonia_mnist(tmp_path, download_if_missing=False)
    assert len(bunch.images) == 3
    assert "not the official one" in bunch.DESCR


@pytest.mark.parametrize("keep", [0, 10, 1500])
def test_fetch_names_a_truncated_file(tmp_path, keep):
    path = tmp_path / "pneumoniamnist.npz"
    _write_archive(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError, match="Delete it"):
        fetch_pneumonia_mnist(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((6, 64, 64), np.uint8)}, "expected uint8"),
        ({"train_labels": np.full((6, 1), 7, np.uint8)}, "labels"),
        ({"train_labels": np.zeros((5, 1), np.uint8)}, "labels"),
        ({"train_images": np.array([{}], dtype=object)}, "cannot be read"),
    ],
)
def test_fetch_names_a_file_with_other_arrays(tmp_path, change, message):
    path = tmp_path / "pneumoniamnist.npz"
    _write_archive(path)
    with np.load(path) as arrays:
        changed = {**arrays, **change}
    np.savez(path, **changed)
    with pytest.raises(DatasetError, match=message):
        fetch_pneumonia_mnist(tmp_path)


def test_fetch_unknown_subset(tmp_path):
    with pytest.raises(ValueError, match="subset"):
        fetch_pneumonia_mnist(tmp_path, subset="dev")


def test_fetch_reads_the_real_file(shared_data):
    bunch = fetch_pneumonia_mnist(shared_data, subset="test", download_if_missing=False)
    assert bunch.images.shape == (624, 28, 28)
    assert bunch.target.sum() == 390


# --- the checkpoint's training ----------------------------------------------------


@pytest.fixture
def training(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "training"]:
        del sys.modules[name]


def test_evaluation_prompts_are_worded_as_no_training_caption_is(training):
    from training.prompts import EVALUATION_PROMPTS, shared_with_training
    from training.wording import Clause, list_clauses

    assert set(EVALUATION_PROMPTS) == set(FINDINGS)
    assert shared_with_training() == []
    assert Clause("no pleural effusion", false=("effusion",)) in list_clauses()


def test_training_labels_follow_from_the_facts(training, phantoms):
    from training.wording import judge, sample_captions

    captions = sample_captions(200, np.random.default_rng(0))
    facts = phantoms.facts.to_numpy()[:50]
    verdict = judge(facts, captions)
    for row in range(50):
        for column in range(200):
            asserted = facts[row][captions.true[column] == 1]
            denied = facts[row][captions.false[column] == 1]
            if (asserted == 0).any() or (denied == 1).any():
                expected = 0
            elif (asserted == 1).all() and (denied == 0).all():
                expected = 1
            else:
                expected = -1
            assert verdict[row, column] == expected
