"""What ``benchmarks.scale_out`` calculates and sees, and the page made from it."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import _paper, report
from benchmarks._watch import Watch

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"

READING = {"file, MB": 10.0, "a reading task, ms": 9.0}
WRITING = {
    "writing a row, ms": 0.6,
    "merging a row, ms": 0.4,
    "bytes a row, merged": 5000.0,
}
GPU = {"peak, TFLOP/s": 1000.0, "USD an hour": 3.0}


def assumed(**other):
    return {
        "images": 3_600_000,
        "GPUs": 8,
        "share of a GPU's peak that is reached": 0.5,
        "CPU cores beside the GPUs": 10**6,
        "storage, GB/s": 10**6,
        **other,
    }


def test_an_image_takes_what_its_layers_do():
    # By hand: four products of width and two of inner width a patch, and attention.
    n, w, m = 1024, 1152, 4304
    layers = 27 * (2 * n * (4 * w * w + 2 * w * m) + 4 * n * n * w)
    found = _paper.image_operations()
    assert layers < found < 1.01 * layers
    assert found == pytest.approx(0.98e12, rel=0.01)


def test_a_job_waits_for_the_model_where_all_else_is_plenty():
    job = _paper.embedding_job(READING, WRITING, GPU, assumed())
    per_gpu = 0.5 * 1000e12 / _paper.image_operations()
    assert job["waits for"] == "model"
    assert job["images/s a GPU"] == pytest.approx(per_gpu)
    assert job["hours"] == pytest.approx(1000 / (8 * per_gpu))
    assert job["USD"] == pytest.approx(24 * job["hours"])
    # Ten core milliseconds an image, read and written.
    assert job["cores to feed a GPU"] == pytest.approx(per_gpu / 100)


@pytest.mark.parametrize(
    ("scarce", "stage"),
    [
        # 100 images a second each: 3.6 million in ten hours.
        ({"CPU cores beside the GPUs": 1}, "reading on CPUs"),
        ({"storage, GB/s": 1.0}, "storage"),
    ],
)
def test_a_job_waits_for_what_is_scarce(scarce, stage):
    job = _paper.embedding_job(READING, WRITING, GPU, assumed(**scarce))
    assert job["waits for"] == stage
    assert job["hours"] == pytest.approx(10)
    assert job["hours, model alone"] < 10


def test_a_billion_vectors_are_what_they_are_in_bytes():
    retrieval = report.read_results()["retrieval"]
    found = _paper.search_of(10**9, WRITING, retrieval)
    assert found["storage"]["vectors, float32, TB"] == 4.608
    assert found["storage"]["shards of a job, TB"] == 5.0
    assert found["a query"]["vectors a node"] == 62_500_000


def test_the_pages_tables_are_those_of_the_results():
    results = report.read_results()["scale_out"]
    retrieval = report.read_results()["retrieval"]
    assert results["paper"] == _paper.calculate(results["parts"], retrieval)
    page = PAGE.read_text("utf-8")
    said = "run: python -m benchmarks.scale_out --paper"
    assert page == _paper.with_tables(page, results["paper"]), said


def test_memory_and_time_of_children_are_seen():
    code = (
        "import subprocess, sys; print(flush=True); subprocess.run([sys.executable, "
        "'-c', 'x = bytearray(80_000_000); import time; time.sleep(1)'])"
    )
    with (
        subprocess.Popen([sys.executable, "-c", code]) as process,
        Watch(process.pid) as watch,
    ):
        process.wait()
    assert watch.core_seconds > 0
    assert watch.megabytes["Ray's own processes, PSS, MB"] > 80
    assert watch.megabytes["driver, RSS, MB"] < 80
