"""Jobs and searches on a real cluster: a head, two worker nodes, and their failures.

Nodes are process trees of their own on this machine. Nothing is simulated: what dies is
killed with signal 9, and the object store is a server that speaks S3.

All tests share one cluster. Those that need no more than it are quick; larger ones are
marked slow.
"""

import logging
import os
import shutil
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray_cluster
from ray_cluster import DEADLY, encoders_of, kill, kill_node, report_of, wait_until
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from sk_medsiglip import (
    EmbeddingCache,
    HeadSearchCV,
    ImageRetriever,
    MedSigLIPEmbedder,
)
from sk_medsiglip.cache import Space
from sk_medsiglip.cli import app
from sk_medsiglip.datasets import make_chest_phantoms, write_phantoms
from sk_medsiglip.distributed import (
    _manifest,
    _shards,
    _storage,
    _tidying,
    embed_dataset,
    import_embeddings,
    load_embeddings,
    parallel_on_ray,
)
from sk_medsiglip.encoder import DEMO_FOLDER, clear_encoders
from sk_medsiglip.evaluation import label_efficiency
from sk_medsiglip.exceptions import CheckpointError, SkMedSiglipError

N_IMAGES = 120

pytestmark = [
    # Starting a cluster takes minutes where others compute, and counts for a test.
    pytest.mark.timeout(900),
    # Ray's own: files and sockets that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of phantoms, and their table."""
    folder = tmp_path_factory.mktemp("images")
    phantoms = make_chest_phantoms(N_IMAGES, random_state=0)
    write_phantoms(phantoms, folder, formats="png")
    return folder


@pytest.fixture(scope="module")
def expected(images):
    """The row of each image, by one machine's embedder."""
    names = sorted(path.name for path in images.glob("*.png"))
    embedder = MedSigLIPEmbedder("demo", cache=False)
    rows = embedder.transform([str(images / name) for name in names])
    clear_encoders()
    return dict(zip(names, rows, strict=True))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ray_cluster.running_cluster(tmp_path_factory.mktemp("site")) as running:
            yield running


@pytest.fixture(scope="module")
def connected(cluster):
    """Connect this process, as a user's script does."""
    import ray

    ray.init(
        cluster.address,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.ERROR,
    )
    yield cluster
    ray.shutdown()


@pytest.fixture
def small_blocks(monkeypatch):
    """Sixteen images a block."""
    monkeypatch.setattr("sk_medsiglip.distributed._job._BLOCK_PATCHES_CPU", 16 * 64)


def check_vectors(found, expected):
    """Equal to a millionth of their length: batches of another size round otherwise."""
    apart = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert apart.max() < 1e-6


def check_rows(out, expected):
    """Every image once, none lost, vectors equal."""
    bunch = load_embeddings(out)
    sources = [Path(source).name for source in bunch.frame["source"]]
    assert sorted(sources) == sorted(expected)
    check_vectors(bunch.X, np.stack([expected[name] for name in sources]))


@pytest.mark.slow
def test_a_job_from_table_to_laptop(
    connected, images, expected, small_blocks, tmp_path, monkeypatch
):
    monkeypatch.setattr("sk_medsiglip.distributed._pipeline._READER_RETRIES", 1)
    # Two files that cannot be read, one of which ends its readers.
    here = tmp_path / "images"
    shutil.copytree(images, here)
    (here / "bad.png").write_bytes(b"nothing")
    shutil.copy(here / min(expected), here / DEADLY)
    table = pd.read_csv(images / "labels.csv")[["path", "patient"]]
    more = pd.DataFrame({"path": ["bad.png", DEADLY], "patient": "P"})
    pd.concat([table, more]).to_csv(here / "table.csv", index=False)
    model = tmp_path / "model"
    shutil.copytree(DEMO_FOLDER, model)
    out = tmp_path / "out"

    report = embed_dataset(here / "table.csv", out, model=str(model), concurrency=1)
    assert (report.n_embedded, report.n_skipped, report.n_failed) == (N_IMAGES, 0, 2)
    assert (report.n_rows, report.n_shards) == (N_IMAGES, 1)
    assert report.n_restarts == 1
    assert report.images_per_second > 0
    assert str(report).startswith(f"{N_IMAGES} embedded, 0 skipped, 2 failed (fail")
    check_rows(out, expected)
    failures = pd.read_parquet(out / "failures.parquet").set_index("source")
    assert failures["reason"]["bad.png"] == "it is not an image file"
    assert "ended the process" in failures["reason"][DEADLY]
    frame = load_embeddings(out).frame.set_index("source")
    assert frame["patient"].to_dict() == dict(table.to_numpy())

    # Some more images, one that changed, one that was mended: only these are computed.
    names = sorted(expected)
    shutil.copy(here / names[0], here / "bad.png")
    shutil.copy(here / names[1], here / "new.png")
    shutil.copy(here / names[2], here / names[3])
    pd.concat([table, more, pd.DataFrame({"path": ["new.png"]})]).to_csv(
        here / "table.csv", index=False
    )
    (here / DEADLY).unlink()
    report = embed_dataset(here / "table.csv", out, model=str(model), concurrency=1)
    assert (report.n_embedded, report.n_failed) == (3, 1)
    assert report.n_skipped == N_IMAGES - 1
    assert (report.n_rows, report.n_restarts) == (N_IMAGES + 2, 0)
    now = expected | {
        "bad.png": expected[names[0]],
        "new.png": expected[names[1]],
        names[3]: expected[names[2]],
    }
    check_rows(out, now)
    failures = pd.read_parquet(out / "failures.parquet")
    assert failures["source"].tolist() == [DEADLY]
    assert failures["reason"].tolist() == ["there is no such file"]

    with pytest.raises(ValueError, match="pad=False"):
        embed_dataset(here / "table.csv", out, model=str(model), pad=True)

    # On a laptop, with neither the model nor Ray.
    shutil.rmtree(model)
    cache = EmbeddingCache(tmp_path / "laptop")
    assert import_embeddings(out, cache).new == N_IMAGES - 1  # repeated pictures
    paths = [str(here / name) for name in names]
    pipe = make_pipeline(
        MedSigLIPEmbedder(str(model), cache=cache), LogisticRegression()
    )
    y = np.arange(len(paths)) % 2
    assert pipe.fit(paths, y).predict(paths).shape == y.shape
    assert cache.stats()["rows_computed"] == len(cache)
    cache.close()


def test_what_goes_wrong_on_a_node_is_raised_here(
    connected, images, small_blocks, tmp_path, monkeypatch
):
    # The weights are there when the job is sent, and others when a node loads them.
    model = tmp_path / "model"
    shutil.copytree(DEMO_FOLDER, model)
    find_facts = sys_module("_embed_dataset").find_facts

    def and_then_change(*args):
        facts = find_facts(*args)
        config = model / "preprocessor_config.json"
        config.write_text(config.read_text() + " ")
        return facts

    monkeypatch.setattr(sys_module("_embed_dataset"), "find_facts", and_then_change)
    paths = sorted(map(str, images.glob("*.png")))[:3]
    with pytest.raises(CheckpointError, match="not revision=") as caught:
        embed_dataset(paths, tmp_path / "out", model=str(model), concurrency=1)
    assert isinstance(caught.value, SkMedSiglipError)
    assert "run the job again" in caught.value.__notes__[-1]


@pytest.mark.slow
def test_a_gpu_gets_an_encoder_of_its_own(connected, images, expected, tmp_path):
    # Ray gives out what a node says that it has; the model computes on a core all the
    # same. What differs is the way: other blocks, other reservations.
    node = connected.add_node(
        num_cpus=1, num_gpus=1, object_store_memory=200 * ray_cluster.MEGABYTE
    )
    report = embed_dataset(images, tmp_path / "out", model="demo")
    assert (report.n_embedded, report.n_failed) == (N_IMAGES, 0)
    check_rows(tmp_path / "out", expected)
    connected.remove_node(node)


@pytest.mark.slow
def test_the_command_embeds_on_a_cluster(connected, images, expected, tmp_path):
    out = tmp_path / "out"
    some = pd.read_csv(images / "labels.csv").iloc[:16]
    some = some.assign(path=[str(images / name) for name in some["path"]])
    some.to_csv(tmp_path / "some.csv", index=False)
    result = CliRunner().invoke(
        app,
        ["embed", str(tmp_path / "some.csv"), str(out), "--model", "demo"]
        + ["--ray", connected.address, "--encoders", "1"],
    )
    assert result.exit_code == 0, result.output
    assert "16 embedded, 0 skipped, 0 failed" in result.stdout
    assert f'load_embeddings("{out}")' in result.stdout
    check_rows(out, {Path(path).name: expected[Path(path).name] for path in some.path})


def sys_module(name):
    import importlib

    return importlib.import_module(f"sk_medsiglip.distributed.{name}")


def hurt_a_job(cluster, source, out, *, n_block, first, second, third):
    """Kill a node, an encoder and the driver; return how many shards were written."""
    shards = Path(out, "shards")

    def n_shards():
        return len(list(shards.glob("*.parquet"))) if shards.is_dir() else 0

    driver = ray_cluster.start_driver(cluster.address, source, out, n_block=n_block)
    wait_until(lambda: n_shards() >= first, driver)
    lost, left = cluster.worker_nodes
    kill_node(cluster, lost)
    wait_until(lambda: n_shards() >= second and encoders_of(left), driver)
    killed = encoders_of(left)[0]
    kill(killed)
    wait_until(
        lambda: n_shards() >= third and set(encoders_of(left)) - {killed}, driver
    )
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    return n_shards()


@pytest.mark.slow
def test_a_node_an_encoder_and_the_driver_die(cluster, images, expected, tmp_path):
    table, out = images / "labels.csv", tmp_path / "out"
    n_before = hurt_a_job(
        cluster, str(table), out, n_block=4, first=2, second=5, third=8
    )
    assert 8 <= n_before < N_IMAGES / 4, "the job was over before it was killed"
    ray_cluster.add_node(cluster)
    # Run again, by a process of its own as before.
    report = report_of(
        ray_cluster.start_driver(cluster.address, str(table), out, concurrency=1)
    )
    assert report["n_failed"] == 0
    assert report["n_skipped"] >= 4 * (n_before - 1)
    assert report["n_embedded"] + report["n_skipped"] == N_IMAGES
    assert report["n_rows"] == N_IMAGES
    check_rows(out, expected)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thousands_of_files_survive_it_too(cluster, tmp_path):
    folder = tmp_path / "images"
    write_phantoms(make_chest_phantoms(4000, random_state=1), folder, formats="png")
    names = sorted(path.name for path in folder.glob("*.png"))
    rows = MedSigLIPEmbedder("demo", cache=False).transform(
        [str(folder / name) for name in names]
    )
    table, out = str(folder / "labels.csv"), tmp_path / "out"
    n_before = hurt_a_job(
        cluster, table, out, n_block=8, first=100, second=200, third=300
    )
    assert 300 <= n_before < 4000 / 8, "the job was over before it was killed"
    ray_cluster.add_node(cluster)

    # The same images in another order are other blocks, so that rows come twice.
    turned = str(folder / "turned.csv")
    pd.read_csv(table).iloc[::-1].to_csv(turned, index=False)
    jobs = [
        ray_cluster.start_driver(cluster.address, table, out, concurrency=1),
        ray_cluster.start_driver(cluster.address, turned, out, concurrency=1),
    ]
    reports = [report_of(job) for job in jobs]
    for report in reports:
        assert report["n_failed"] == 0
        assert report["n_skipped"] >= 8 * (n_before - 1) - 8
        assert report["n_embedded"] + report["n_skipped"] == 4000
    # Who ended first saw some rows of the other twice; who ended last left none so.
    assert min(report["n_rows"] for report in reports) == 4000
    check_rows(out, dict(zip(names, rows, strict=True)))


def test_jobs_that_end_together_leave_every_row_once(connected, tmp_path):
    # Shards of 5 rows, in which each source stands twice; the last row of it stays.
    storage = _storage.Storage(str(tmp_path / "out"))
    space = Space("image", "demo", "none", "none", "float32", "torch", 4)
    manifests = [_manifest.Manifest(storage, {}) for _ in range(3)]
    for number in range(24):
        names = [f"{(5 * number + i) % 60}" for i in range(5)]
        rows = pa.table(
            {
                "key": pa.array(
                    [_shards.make_key(n, b"") for n in names], pa.binary(16)
                ),
                "source": names,
                "size": [number] * 5,
                "mtime": [0] * 5,
                "fingerprint": pa.array([bytes(32)] * 5, pa.binary(32)),
            }
        )
        vectors = np.full((5, 4), number, np.float32)
        shard = _shards.make_shard(space, rows, vectors, models=[], recipe={})
        entry = _shards.put_shard(storage, shard, when=float(number))
        manifests[number % 3].commit(_manifest.Commit((entry,)))
    with ThreadPoolExecutor(3) as pool:
        states = list(pool.map(_tidying.tidy, manifests, [storage] * 3, [10, 30, 1000]))
    assert min(state.n_rows for state in states) == 60
    bunch = load_embeddings(storage.url)
    assert sorted(bunch.sources, key=int) == [str(i) for i in range(60)]
    expected = [12 + int(source) // 5 for source in bunch.sources]
    np.testing.assert_array_equal(bunch.X[:, 0], expected)


# ------------------------------------------------------------------ an object store


@pytest.fixture(scope="module")
def bucket():
    """An object store, by a server that speaks S3; gives the URL of a bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    from pyarrow import fs

    options = {"endpoint_override": f"{host}:{port}", "scheme": "http"}
    client = fs.S3FileSystem(**options, region="us-east-1", allow_bucket_creation=True)
    client.create_dir("hospital")
    yield f"s3://hospital/embeddings?endpoint_override={host}:{port}&scheme=http"
    server.stop()


@pytest.fixture(scope="module")
def stored(connected, images, bucket):
    """A table that was embedded into the object store: (table, names, report)."""
    table = pd.read_csv(images / "labels.csv")[["path", "patient"]].iloc[:40]
    report = embed_dataset(
        table.assign(path=[str(images / name) for name in table["path"]]),
        bucket,
        model="demo",
        concurrency=1,
    )
    return table, table["path"].tolist(), report


def test_an_object_store_is_an_output(stored, bucket, images, expected):
    table, names, report = stored
    assert (report.n_embedded, report.n_failed) == (40, 0)
    assert (report.n_rows, report.n_shards) == (40, 1)
    check_rows(bucket, {name: expected[name] for name in names})
    patients = load_embeddings(bucket).frame["patient"]
    assert sorted(patients) == sorted(table["patient"])
    paths = [str(images / name) for name in names]
    again = embed_dataset(paths, bucket, model="demo", concurrency=1)
    assert (again.n_embedded, again.n_skipped, again.n_rows) == (0, 40, 40)


def test_a_laptop_trains_on_an_object_store_without_the_model(
    stored, bucket, images, tmp_path, monkeypatch
):
    _, names, _ = stored
    cache = EmbeddingCache(tmp_path / "laptop")
    assert import_embeddings(bucket, cache).new == len(names)

    def refuse(*_, **__):
        raise AssertionError("the model was asked for")

    clear_encoders()
    monkeypatch.setattr("sk_medsiglip.encoder._encoder.Encoder.encode_images", refuse)
    paths = [str(images / name) for name in names]
    pipe = make_pipeline(MedSigLIPEmbedder("demo", cache=cache), KNeighborsClassifier())
    y = np.arange(len(paths)) % 2
    assert pipe.fit(paths, y).predict(paths).shape == y.shape
    assert cache.stats()["rows_computed"] == len(cache)
    cache.close()


@pytest.mark.parametrize("index", ["exact", "lancedb"])
def test_a_search_of_an_object_store_finds_what_one_of_local_shards_finds(
    stored, bucket, images, tmp_path, index
):
    from pyarrow import fs

    _, names, _ = stored
    here = tmp_path / "shards"
    there, path = fs.FileSystem.from_uri(bucket)
    fs.copy_files(path, str(here), source_filesystem=there)
    retrievers = [
        ImageRetriever.from_parquet(
            place,
            index=index,
            **({"uri": str(tmp_path / name)} if index == "lancedb" else {}),
        )
        for name, place in (("far", bucket), ("near", here))
    ]
    for query in ("pleural effusion", images / names[0]):
        far, near = (one.search(query, n=10) for one in retrievers)
        pd.testing.assert_frame_equal(far, near)
        assert len(far) == 10
    assert far["source"].iloc[0] == str(images / names[0])


# ----------------------------------------------------------------------------- searches


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 100)).astype(np.float32)
    return X, (X[:, 0] + rng.normal(size=400) > 0).astype(int)


def test_grid_search_sends_its_array_once(connected, data):
    X, y = data
    grid = {"C": [0.01, 0.1, 1.0]}
    alone = GridSearchCV(LogisticRegression(), grid, cv=3).fit(X, y)
    with parallel_on_ray(n_jobs=2) as traffic:
        search = GridSearchCV(LogisticRegression(), grid, cv=3).fit(X, y)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )
    assert (traffic.n_tasks, traffic.n_arrays) == (9, 1)
    assert traffic.array_bytes == X.nbytes
    assert traffic.task_bytes / traffic.n_tasks < X.nbytes / 10


def test_head_search_sends_its_array_once(connected, data):
    X, y = data
    with parallel_on_ray() as traffic:
        search = HeadSearchCV(
            space=["prototypes"], n_trials=2, n_jobs=2, cv=3, random_state=0
        ).fit(X, y)
    assert len(search.cv_results_["mean_test_score"]) == 2
    # Inside of an object, where Ray itself does not look.
    assert traffic.n_tasks in (3, 6)  # the second trial may repeat the first
    assert traffic.array_bytes < 2 * X.nbytes
    assert traffic.task_bytes < X.nbytes


@pytest.mark.slow
def test_learning_curves_run_on_the_cluster(connected, data):
    X, y = data
    learn = {"knn": KNeighborsClassifier(3)}, X[:300], y[:300], [20, 50]
    settings = {"n_repeats": 2, "X_test": X[300:], "y_test": y[300:]}
    alone = label_efficiency(*learn, **settings)
    with parallel_on_ray(n_jobs=2) as traffic:
        there = label_efficiency(*learn, n_jobs=2, **settings)
    pd.testing.assert_frame_equal(alone, there)
    assert traffic.n_tasks == 4


@pytest.mark.slow
def test_a_search_over_images_computes_nothing_that_is_stored(
    connected, images, tmp_path
):
    paths = sorted(map(str, images.glob("*.png")))[:60]
    y = np.arange(60) % 2
    cache = EmbeddingCache(tmp_path / "store")
    embedder = MedSigLIPEmbedder("demo", cache=cache)
    embedder.fit(paths).transform(paths)
    assert cache.stats()["rows_computed"] == 60
    pipe = make_pipeline(embedder, KNeighborsClassifier())
    grid = {"kneighborsclassifier__n_neighbors": [1, 5]}
    with parallel_on_ray(n_jobs=2):
        search = GridSearchCV(pipe, grid, cv=3, error_score="raise").fit(paths, y)
    assert search.best_estimator_.predict(paths).shape == (60,)
    assert cache.stats()["rows_computed"] == 60
    cache.close()
