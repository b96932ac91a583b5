"""The comparisons run, the sides agree, and the page is made from their JSON."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import pytest

from benchmarks import (
    audit,
    audit_sets,
    bags,
    coverage,
    embedding,
    gpu,
    persistence,
    queue,
    report,
    scaling,
    search,
)
from benchmarks._measure import setting
from sk_medsiglip.encoder import DEMO_FOLDER, Encoder, clear_encoders

ROOT = Path(__file__).parents[1]

pytestmark = [
    # Ten values of C on a few pictures: not all of them converge, on any side.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    # Few pictures make small classes, too.
    pytest.mark.filterwarnings("ignore:The least populated class:UserWarning"),
    # transformers' own reading of a checkpoint, in the sides that use it.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(transformers|torch).*"),
]


@pytest.fixture
def uncounted(monkeypatch, tmp_path):
    """Take back what counting model passes does to the encoder."""
    monkeypatch.setenv(search.COUNTS, str(tmp_path / "passes"))
    clear_encoders()
    plain = Encoder.encode_images
    yield
    Encoder.encode_images = plain
    if hasattr(Encoder, "counted"):
        del Encoder.counted
    clear_encoders()


def figures_of(values):
    """Every number in nested results."""
    for value in values.values():
        if isinstance(value, dict):
            yield from figures_of(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield value


def test_embedding_agrees_with_the_loop_over_transformers(tmp_path, monkeypatch):
    # OpenVINO is converted to and compared in tests of its own.
    ours = {k: v for k, v in embedding.OURS.items() if v["engine"] == "torch"}
    monkeypatch.setattr(embedding, "OURS", ours)
    found = embedding.measure("demo", 6, 160, 1, tmp_path, 6)
    ours = found["ours, torch float32"]
    assert ours["smallest cosine to the loop, no resizing"] > 0.99999
    # Half as many digits, the same vectors.
    halved = found["ours, torch bfloat16"]
    assert 0.99 < halved["smallest cosine to the loop, no resizing"] <= 1.00001
    assert all(math.isfinite(one) and one > 0 for one in figures_of(found))


def test_search_counts_model_passes_and_agrees_on_scores(
    tmp_path, uncounted, monkeypatch
):
    n, n_plain, n_candidates = 40, 20, 2
    whole = search.search

    def fewer_candidates(*args, **kwargs):
        made = whole(*args, **kwargs)
        made.param_grid = {k: v[:n_candidates] for k, v in made.param_grid.items()}
        return made

    monkeypatch.setattr(search, "search", fewer_candidates)
    found = search.measure(n, 1, tmp_path, n_plain)
    assert found["ours, empty store"]["model passes"] == n
    assert found["ours, stored, turn 0"]["model passes"] == 0
    assert found["ready matrix"]["model passes"] == 0
    # A fit and its score see all images together, and the refit sees them once more.
    plain = found[f"plain pipeline, {n_plain} images"]
    assert plain["model passes"] == (5 * n_candidates + 1) * n_plain
    # memory= keeps what training rows became, not what is transformed for a score.
    # Five folds of 4/5 to train on, 1/5 to score for each candidate, and the refit.
    assert found["Pipeline(memory=)"]["model passes"] == (4 + n_candidates + 1) * n
    scores = {
        found[name]["best score"]
        for name in ("ready matrix", "ours, empty store", "ours, stored, turn 0")
    }
    assert len(scores) == 1
    assert found["ours, empty store"]["bytes on disk"] > n * 192 * 4


def test_the_audit_finds_what_is_planted(tmp_path):
    X, y, groups = audit.audit_rows(100, n_images=120, folder=tmp_path)
    wrong = audit.flip("5 % of labels", y, groups, 100)
    found = audit.judge_labels(X, y[:, :1], groups, wrong[:, :1])
    assert found["ours"][0] > 0.2
    assert found["cleanlab"][0] > 0.2
    rows = np.array([3, 0, 2, 1])
    assert audit.precision_at_recall(rows, np.array([1, 0, 0, 1], bool)) == 1
    assert audit.precision_at_recall(rows, np.array([0, 1, 1, 0], bool)) == 0.5
    cost = audit.measure_cost(300, 2, 20)
    assert set(cost["times as fast, eight penalties"]) == {"s", "CPU s"}


def test_the_queue_is_measured_in_pairs(monkeypatch):
    monkeypatch.setattr(queue, "N_LABELS", (16, 24))
    theirs = {"backwards": lambda session, known, seed: session.queue(8)[::-1]}
    found = queue.measure(queue.digits_task(), 2, theirs, 1)
    assert found["scikit-activeml's best"] == "backwards"
    found = found["24 labels"]
    gain = found["AUC, queue"] - found["AUC, random"]
    assert found["queue - random"] == pytest.approx(gain)
    assert found["low, random"] <= gain <= found["high, random"]
    assert found["queue - theirs"] == 0
    y = np.array([0] * 98 + [1] * 40)
    assert y[queue.thin_out(y, 0.02)].tolist() == [0] * 98 + [1] * 2


def test_the_audit_of_sets_is_measured(tmp_path, monkeypatch):
    def rows(seed, *fault, folder, **sizes):
        rng = np.random.default_rng(seed)
        y = (rng.random((90, 6)) < 0.2).astype(int)
        return rng.normal(size=(90, 8)), y, np.arange(90) // 2

    monkeypatch.setattr(audit_sets, "audit_rows", rows)
    monkeypatch.setattr(audit_sets, "N_PATIENTS", (25, 15))
    drift = audit_sets.measure_drift([100, 101], tmp_path, 2)
    assert drift["nothing planted"]["draws"] == 4
    novelty = audit_sets.measure_novelty([100, 101], tmp_path, 0)
    assert novelty["phantoms"]["false alarms at .05, by patient"] < 0.3
    y, score, metadata, patients = audit_sets.draw_scores(100, 300, 0.4)
    inside = (metadata["site"] == "A") & (metadata["sex"] == "F")
    assert len(y) == len(score) == len(patients)
    assert 0.03 < inside.mean() < 0.15


def test_saving_ours_writes_no_weights(tmp_path, monkeypatch):
    def run(command, check):
        done = forked.run_code(*command[2:])
        assert done.returncode == 0, done.stderr

    # How long an interpreter takes to import torch is not asked here.
    monkeypatch.setattr(persistence, "subprocess", SimpleNamespace(run=run))
    found = persistence.measure("demo", tmp_path, 4)
    assert found["ours"]["bytes"] < 10_000
    assert found["holding its model"]["bytes"] > 1_000_000
    assert all(one > 0 for one in figures_of(found))


def test_scaling_reads_back_what_a_plain_computation_gives(tmp_path):
    found = scaling.measure(tmp_path, [20, 60], repeats=1)
    assert found["rows agree with ones computed without a store"] is True
    assert set(found["sizes"]) == {"20", "60"}
    assert found["bytes a row, all files of the store"] > 1152 * 4
    assert math.isfinite(found["log-log slope"])
    assert set(found["beyond"]) == {"10000000", "1000000000"}
    assert 0 < sum(found["profile of the largest, share of the time"].values()) <= 1


def test_scaling_carries_a_slope_on():
    even = scaling.fit_slope([10, 100, 1000], [0.2, 2.0, 20.0])
    assert even == pytest.approx(1)
    # Ten times the rows at a square law: a hundred times the time.
    far = scaling.beyond(1000, 100, 36.0, 2.0, 500_000)
    assert far["hours of transform"] == pytest.approx(1)
    assert far["store, TB"] == pytest.approx(5e-6)
    # Cheaper and cheaper rows are not believed.
    near = scaling.beyond(1000, 100, 36.0, 0.5, 500_000)
    assert near["hours of transform"] == pytest.approx(0.1)


def test_coverage_counts_shares_of_data_sets(monkeypatch):
    monkeypatch.setattr(coverage, "SIZES", (3, 20))
    found = coverage.gaps(6, 60, True, (0.5, 0.999), (0.5, 0.5))
    assert set(found) == set(coverage.METRICS)
    assert found["roc_auc"]["20"] > 0.5  # as far apart as can be
    found = coverage.intervals(4, 10, True, 0.9, 0.3)
    assert set(found) == {"roc_auc", *coverage.SHARES, "macro roc_auc"}
    assert all(0 <= one <= 1 for one in figures_of(found))
    found = coverage.pairs(4, 10, (0.9, 0.6))
    assert found["contradicts"] == 0
    found = coverage.operating_points(3)
    assert all(0.7 < one["mean sensitivity"] <= 1 for one in found.values())


def test_setting_names_machine_and_versions():
    found = setting("numpy", images=3)
    assert {"machine", "cores", "cpu_features", "python", "numpy", "images"} == set(
        found
    )


def test_report_renders_results_that_it_has_no_words_for():
    page = report.make_report(
        {
            "new_thing": {
                "cores": 2,
                "share": 0.5,
                "left": {"s": 1234.5, "same": True, "cosine": 0.99998},
                "right": {"s": 0.01234, "same": False, "cosine": None},
                "deep": {"inner": {"a": {"b": 1}}},
            }
        }
    )
    assert "## new thing" in page
    assert "| share | 0.5 |" in page
    assert "| left | 1,234 | yes | 0.99998 |" in page
    assert "| right | 0.0123 | no | – |" in page
    assert "### deep" in page


@pytest.mark.parametrize(("ratio", "said"), [(1.2, "met"), (1.4, "**missed**")])
def test_report_says_whether_a_target_is_met(ratio, said):
    results = {"search": {"n_jobs=1": {"ours, stored / ready matrix": ratio}}}
    assert f"| {ratio} | at most 1.3 | {said} |" in report.make_report(results)


@pytest.mark.parametrize(("speed", "said"), [(2.4, "met"), (2.2, "**missed**")])
def test_report_knows_targets_from_below(speed, said):
    image = {"openvino bfloat16": {"speed over torch float32": speed}}
    page = report.make_report({"engines": {"full size": {"image": image}}})
    assert f"| {speed} | at least 2.3 | {said} |" in page


def test_page_is_made_from_the_committed_results():
    results = report.read_results()
    assert {"reading", "cache", "scaling"} <= set(results)
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page == report.make_report(results), "run: python -m benchmarks.report"


def test_results_name_no_place_of_the_machine():
    for name, values in report.read_results().items():
        place = re.search(
            r'"/\w|/(home|root|tmp|work|Users)/|[A-Z]:\\\\', json.dumps(values)
        )
        assert place is None, f"{name}: {place}"


def test_share_of_a_devices_peak_is_counted_from_the_configuration(tmp_path):
    tower = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
    vision = {**tower, "image_size": 448, "patch_size": 14}
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": vision}))
    # What a profiler counts for MedSigLIP's image tower.
    assert gpu.operations(tmp_path) == pytest.approx(0.979e12, rel=1e-3)
    found = gpu.measure(DEMO_FOLDER, "cpu", 2, 2, 64, 1)
    assert all(math.isfinite(one) and one > 0 for one in figures_of(found))


def test_bags_are_compared_side_by_side(tmp_path):
    train, test = (
        bags.spots_of(n, 250, seed, tmp_path / "store")
        for n, seed in ((60, 1), (40, 2))
    )
    assert train["bags"].shape == (60, 65, 192)
    scores = bags.compare_on_spots(train, test)
    found = {name: bags.auc_by_size(test, score) for name, score in scores.items()}
    assert found["place known"]["all"] > 0.8
    assert all(0 <= one <= 1 for one in figures_of(found))


def test_bags_are_fitted_and_timed_beside_attention():
    found = bags.measure_speed(60, 16, 2)
    assert all(math.isfinite(one) and one > 0 for one in figures_of(found))
