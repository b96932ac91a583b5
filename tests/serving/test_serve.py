"""A classifier behind HTTP answers as it does in Python, whatever clients send."""

import asyncio
import base64
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
import skops.io
from command_line import run
from dicom_files import PATIENT
from dicom_files import drawn as drawn_dicom
from http_server import encoded, running
from jsonschema import Draft202012Validator
from misbehaving import misbehave
from openapi_spec_validator import validate
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_medsiglip import (
    ConformalZeroShot,
    LinearProbe,
    MedSigLIPEmbedder,
    MedSigLIPPatchEmbedder,
    MedSigLIPVolumeEmbedder,
    ZeroShotClassifier,
    make_zero_shot_pipeline,
)
from sk_medsiglip.audit import NoveltyGate
from sk_medsiglip.encoder import clear_encoders
from sk_medsiglip.evaluation import OperatingPointClassifier
from sk_medsiglip.exceptions import AddressError, ImageReadError
from sk_medsiglip.serving import _decoding, _queue, make_app, serve

DICOM = {"content-type": "application/dicom"}


@pytest.fixture(scope="module")
def client(probe):
    app = make_app(probe, n_decoders=2, max_body=2**20, max_images=8, body_seconds=2)
    with running(app) as client:
        yield client


def probabilities(response):
    predictions = response.json()["predictions"]
    return np.array([list(one["probabilities"].values()) for one in predictions])


def schema(client, name):
    """Return a validator of one of the schemas that the server documents."""
    parts = client.get("/openapi.json").json()["components"]
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": parts}
    )


def ask(classifier, *images):
    """Return the answers of a server of a classifier."""
    with running(make_app(classifier, n_decoders=1)) as client:
        files = [("images", encoded(image)) for image in images]
        response = client.post("/predict", files=files)
        assert response.status_code == 200, response.text
        schema(client, "Answers").validate(response.json())
        return response.json()["predictions"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_file_as_the_body_is_answered_as_in_python(client, probe, drawn, kind):
    content = encoded(drawn.images[0], kind)
    response = client.post("/predict", content=content)
    assert response.status_code == 200
    np.testing.assert_allclose(
        probabilities(response), probe.predict_proba([content]), atol=1e-6
    )
    answer = response.json()
    assert answer["model"] == "demo"
    assert answer["revision"] == probe[0].revision_
    assert set(answer) == {"predictions", "model", "revision", "version"}
    decision = answer["predictions"][0]["decision"]
    assert list(decision.values()) == (probe.predict([content])[0] > 0).tolist()


def test_a_dicom_file_is_shown_as_its_tags_say(client, probe):
    values = np.linspace(0, 4000, 64 * 48).reshape(64, 48).astype(np.uint16)
    content = drawn_dicom(values, PhotometricInterpretation="MONOCHROME1")
    response = client.post("/predict", content=content, headers=DICOM)
    np.testing.assert_allclose(
        probabilities(response), probe.predict_proba([content]), atol=1e-6
    )


def test_several_images_by_form_or_json_keep_their_order(client, probe, drawn):
    contents = [encoded(image) for image in drawn.images[:5]]
    expected = probe.predict_proba(contents)
    form = client.post("/predict", files=[("images", one) for one in contents])
    np.testing.assert_allclose(probabilities(form), expected, atol=1e-6)
    texts = [base64.b64encode(one).decode() for one in contents]
    as_json = client.post("/predict", json={"images": texts})
    np.testing.assert_allclose(probabilities(as_json), expected, atol=1e-6)


def test_an_unreadable_image_has_an_error_in_its_place(client, drawn):
    files = [("a", encoded(drawn.images[0])), ("b", b"text"), ("c", b"")]
    response = client.post("/predict", files=files)
    assert response.status_code == 200
    first, second, third = response.json()["predictions"]
    assert "probabilities" in first
    assert "not an image" in second["error"]
    assert "empty" in third["error"]


@pytest.mark.parametrize(
    ("status", "word", "request_"),
    [
        (422, "no image", {"content": b""}),
        (422, "PDF", {"content": b"%PDF-1.7"}),
        (422, "list", {"json": {"images": 3}}),
        (422, "missing", {"json": {}}),
        (422, "base64", {"json": {"images": ["?"]}}),
        (422, "base64", {"json": {"images": [3]}}),
        (422, "no image", {"json": {"images": []}}),
        (422, "nested", {"content": b"[" * 10_000, "headers": {"content-type": "application/json"}}),  # noqa: E501
        (422, "boundary", {"content": b"--", "headers": {"content-type": "multipart/form-data"}}),  # noqa: E501
        (413, "bytes", {"content": b"0" * (2**20 + 1)}),
        (413, "bytes", {"content": iter([b"0" * 2**19] * 3)}),  # length not declared
        (413, "9 images", {"json": {"images": ["AA=="] * 9}}),
    ],
)  # fmt: skip
def test_bad_requests_get_an_error_that_says_why(client, status, word, request_):
    response = client.post("/predict", **request_)
    assert response.status_code == status
    assert word in response.json()["detail"]


def test_a_bomb_is_refused_and_others_are_answered(client, drawn):
    # A PNG that claims 40,000 x 40,000 pixels, in a few bytes.
    content = bytearray(encoded(drawn.images[0]))
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    response = client.post("/predict", content=bytes(content))
    assert response.status_code == 422
    good = client.post("/predict", content=encoded(drawn.images[0]))
    assert good.status_code == 200


def test_another_host_name_is_refused(client, drawn):
    response = client.post(
        "/predict",
        content=encoded(drawn.images[0]),
        headers={"host": "elsewhere.example"},
    )
    assert response.status_code == 400


def _connect(client):
    return socket.create_connection(("127.0.0.1", client.base_url.port), timeout=20)


def test_slow_and_half_bodies_do_not_keep_others_waiting(client, drawn):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n"
    with _connect(client) as slow, _connect(client) as half:
        slow.sendall(head + b"0")
        half.sendall(head + b"0")
        half.shutdown(socket.SHUT_WR)
        good = client.post("/predict", content=encoded(drawn.images[0]))
        assert good.status_code == 200
        assert b" 408 " in slow.recv(4096)  # after body_seconds


def test_two_hundred_clients_at_once(client, drawn):
    content = encoded(drawn.images[0])

    def post(i):
        body = b"text" if i % 10 == 0 else content
        return client.post("/predict", content=body).status_code

    with ThreadPoolExecutor(200) as threads:
        statuses = list(threads.map(post, range(200)))
    assert statuses == [422 if i % 10 == 0 else 200 for i in range(200)]
    text = client.get("/metrics").text
    batches = float(re.search(r"batch_images_count (\S+)", text)[1])
    images = float(re.search(r"batch_images_sum (\S+)", text)[1])
    assert images > 2 * batches  # went through the model together


def test_bodies_in_memory_are_bounded_together(probe, drawn):
    app = make_app(probe, n_decoders=1, max_body=4096, body_seconds=5)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4096\r\n\r\n"
    with running(app) as client:
        waiting = [_connect(client) for _ in range(9)]
        for one in waiting:
            one.sendall(head + b"0" * 4095)
        answers = []
        for one in waiting:
            one.settimeout(20)
            answers.append(one.recv(4096)[9:12])
            one.close()
    assert b"503" in answers  # one at least was told to come again
    assert set(answers) <= {b"503", b"408"}


def test_other_routes(client, probe):
    assert client.get("/health").json() == {"status": "ok"}
    info = client.get("/info").json()
    assert info["names"] == ["0", "1", "2"]
    assert info["revision"] == probe[0].revision_
    assert not info["has_sets"]
    assert info["demonstration"]
    schema(client, "Info").validate(info)
    page = client.get("/docs").text
    assert "not for clinical use" in page
    assert "demonstration" in page
    assert not re.search(r"(src|href)=.?https?:", page)  # nothing of another host
    assert client.get("/predict").status_code == 405
    assert client.get("/../../etc/passwd").status_code == 404


def test_the_openapi_document_is_valid_and_complete(client):
    document = client.get("/openapi.json").json()
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {"/predict", "/health", "/info", "/metrics"}
    responses = document["paths"]["/predict"]["post"]["responses"]
    example = responses["200"]["content"]["application/json"]["example"]
    schema(client, "Answers").validate(example)
    error = client.post("/predict", content=b"text")
    assert str(error.status_code) in responses
    schema(client, "Error").validate(error.json())


def test_nothing_of_an_image_is_logged(client, caplog):
    caplog.set_level(logging.DEBUG)
    values = np.ones((8, 8), np.uint16)
    content = drawn_dicom(values)
    client.post("/predict?name=Jane", content=content, headers=DICOM)
    client.post("/predict", content=content[:200], headers=DICOM)
    ours = [one for one in caplog.records if not one.name.startswith("http")]
    assert ours
    text = " ".join(one.getMessage() for one in ours)
    assert not any(word in text for word in (PATIENT, "Jane", "Doe"))


def test_classes_sets_and_novelty(drawn, rows):
    y = np.where(drawn.target[:, 1] == 1, "effusion", "normal")
    images = list(drawn.images)
    gated = make_pipeline(
        MedSigLIPEmbedder("demo"),
        NoveltyGate(),
        StandardScaler(),
        LinearProbe(Cs=[1.0]),
    ).fit(images, y)
    sure = ConformalZeroShot(FrozenEstimator(gated), alpha=0.2).fit(images, y)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    first, second = ask(sure, drawn.images[0], noise)
    contents = [encoded(drawn.images[0])]
    assert first["decision"] == sure.predict(contents)[0]
    members = sure.classes_[sure.predict_set(contents)[0]]
    assert first["set"] == members.tolist()
    assert set(first["probabilities"]) == {"effusion", "normal"}
    assert not first["novelty"]["novel"]
    assert second["novelty"]["novel"]
    assert second["novelty"]["p_value"] < 0.05


def test_findings_by_prompts_with_sets(drawn):
    pair = {"positive": "pleural effusion", "negative": "no pleural effusion"}
    other = {"positive": "lung nodule", "negative": "no lung nodule"}
    images = list(drawn.images)
    several = make_zero_shot_pipeline({"effusion": pair, "nodule": other}, model="demo")
    sure = ConformalZeroShot(several).fit(images, drawn.target[:, [1, 0]])
    (answer,) = ask(sure, drawn.images[0])
    assert set(answer["decision"]) == {"effusion", "nodule"}
    is_in = sure.predict_set(images[:1])[0]
    for name, both in zip(sure.findings_, is_in, strict=True):
        states = np.array(["absent", "present"])[both].tolist()
        assert answer["set"][name] == states
    one = make_zero_shot_pipeline({"effusion": pair}, model="demo").fit(images)
    (answer,) = ask(one, drawn.images[0])
    share = one.predict_proba(images[:1])[0, 1]
    assert answer["probabilities"] == {"effusion": pytest.approx(share, abs=1e-6)}
    assert answer["decision"] == {"effusion": bool(one.predict(images[:1])[0])}


def test_operating_points_decide(drawn):
    images, y = list(drawn.images), drawn.target[:, 1]
    pipeline = make_pipeline(MedSigLIPEmbedder("demo"), LinearProbe(Cs=[1.0]))
    frozen = FrozenEstimator(pipeline.fit(images, y))
    for careful in (
        OperatingPointClassifier(frozen, 1e-9).fit(images, y),
        FixedThresholdClassifier(frozen, threshold=1e-9).fit(images, y),
    ):
        answers = ask(careful, *drawn.images[:3])
        assert [one["decision"] for one in answers] == [1, 1, 1]


def test_bags_of_parts(drawn):
    pair = {"positive": "pleural effusion", "negative": "no pleural effusion"}
    images = list(drawn.images[:4])
    parts = MedSigLIPPatchEmbedder(MedSigLIPEmbedder("demo"), grid=2)
    pipeline = make_pipeline(
        parts, ZeroShotClassifier({"effusion": pair}, model="demo")
    ).fit(images)
    (answer,) = ask(pipeline, drawn.images[0])
    share = pipeline.predict_proba(images[:1])[0, 1]
    assert answer["probabilities"]["effusion"] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(
    "classifier",
    [
        LinearProbe(),
        make_pipeline(StandardScaler(), LinearProbe()),
        make_pipeline(
            MedSigLIPVolumeEmbedder(MedSigLIPEmbedder("demo")), LinearProbe()
        ),
        make_pipeline(MedSigLIPEmbedder("demo")),
    ],
    ids=["head", "rows", "studies", "no head"],
)
def test_what_is_not_a_classifier_of_images_is_refused(classifier):
    with pytest.raises(TypeError, match="MedSigLIPEmbedder"):
        make_app(classifier)


def test_a_wider_address_names_the_terms(probe):
    with (
        socket.create_server(("0.0.0.0", 0)) as taken,
        pytest.warns(UserWarning, match="terms"),
        pytest.raises(AddressError, match="in use"),
    ):
        serve(probe, host="0.0.0.0", port=taken.getsockname()[1], n_decoders=1)


def test_a_decoder_that_dies_or_hangs_hurts_no_other_image():
    decoders = _decoding.Decoders(misbehave, 2, seconds=10)
    try:
        with ThreadPoolExecutor(4) as threads:
            contents = [b"crash", b"good", b"good", b"bad", b"good"]
            futures = [threads.submit(decoders.decode, one) for one in contents]
        for content, future in zip(contents, futures, strict=True):
            if content == b"good":
                assert future.result().shape == (2, 2, 3)
            else:
                word = "bad" if content == b"bad" else "ended"
                with pytest.raises(ImageReadError, match=word):
                    future.result()
        assert decoders.n_restarts == 1
        with pytest.raises(ImageReadError, match="ZeroDivisionError"):
            decoders.decode(b"defect")
        decoders._seconds = 0.5
        with pytest.raises(ImageReadError, match="took"):
            decoders.decode(b"hang")
    finally:
        decoders.close()


def test_one_bad_item_of_a_batch_fails_alone():
    calls = []

    def double(items):
        calls.append(list(items))
        if 13 in items:
            raise ZeroDivisionError
        return [2 * item for item in items]

    async def main():
        queue = _queue.BatchQueue(double, max_batch=8, max_waiting=8)
        items = [1, 2, 13, 4]
        asked = (queue.ask(item) for item in items)
        found = await asyncio.gather(*asked, return_exceptions=True)
        await queue.close()
        return found

    found = asyncio.run(main())
    assert found[:2] == [2, 4]
    assert isinstance(found[2], ZeroDivisionError)
    assert found[3] == 8
    assert [1, 2, 13, 4] in calls


def test_calls_at_a_time_share_what_waits():
    started, both = [], threading.Barrier(2, timeout=60)

    def double(items):
        if len(items) > 1:
            both.wait()
        return [2 * item for item in items]

    async def main():
        queue = _queue.BatchQueue(
            double,
            max_batch=8,
            max_waiting=8,
            n_threads=2,
            start_thread=lambda: started.append(threading.get_ident()),
        )
        alone = await queue.ask(0)
        assert not started  # it had the machine for itself
        found = await asyncio.gather(*(queue.ask(item) for item in range(1, 5)))
        await queue.close()
        return [alone, *found]

    assert asyncio.run(main()) == [0, 2, 4, 6, 8]
    assert len(set(started)) == 2


def test_a_full_queue_says_so():
    async def main():
        queue = _queue.BatchQueue(lambda items: items, max_batch=1, max_waiting=2)
        asked = (queue.ask(i) for i in range(5))
        found = await asyncio.gather(*asked, return_exceptions=True)
        await queue.close()
        return found

    found = asyncio.run(main())
    assert found[:2] == [0, 1]
    assert all(isinstance(one, asyncio.QueueFull) for one in found[2:])


def test_the_command_says_what_a_wrong_file_holds(drawn, tmp_path):
    skops.io.dump(LinearProbe(), tmp_path / "head.skops")
    assert "LinearProbe" in run("serve", tmp_path / "head.skops", code=2)
    assert "train" in run("serve", tmp_path / "none.skops", code=2)
    unfitted = make_pipeline(MedSigLIPEmbedder("demo"), LinearProbe())
    skops.io.dump(unfitted, tmp_path / "new.skops")
    assert "not fitted" in run("serve", tmp_path / "new.skops", code=2)
    images, y = list(drawn.images), drawn.target[:, 0]
    no_shares = make_pipeline(MedSigLIPEmbedder("demo"), RidgeClassifier())
    skops.io.dump(no_shares.fit(images, y), tmp_path / "ridge.skops")
    assert "predict_proba" in run("serve", tmp_path / "ridge.skops", code=2)
    (tmp_path / "text.skops").write_text("text")
    assert "not a skops file" in run("serve", tmp_path / "text.skops", code=2)


def test_the_command_says_that_the_port_is_in_use(probe, tmp_path):
    skops.io.dump(probe, tmp_path / "model.skops")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = run("serve", tmp_path / "model.skops", "--port", port, code=2)
    assert f"port {port} of 127.0.0.1: Address already in use" in said


def test_the_command_says_that_the_weights_are_missing(
    make_checkpoint, drawn, tmp_path
):
    folder = make_checkpoint(seed=5)
    pipeline = make_pipeline(MedSigLIPEmbedder(str(folder)), LinearProbe(Cs=[1.0]))
    pipeline.fit(list(drawn.images), drawn.target[:, 0])
    skops.io.dump(pipeline, tmp_path / "model.skops")
    (folder / "model.safetensors").unlink()
    clear_encoders()
    said = run("serve", tmp_path / "model.skops", "--port", _free_port(), code=2)
    assert "Error: " in said
    assert "weights" in said


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def _command(folder, port, content):
    """Run ``sk-medsiglip serve`` on the file of a folder; it has answered once."""
    command = [sys.executable, "-m", "sk_medsiglip.cli", "serve", "model.skops"]
    with subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=folder,
        env=os.environ | {"LOKY_MAX_CPU_COUNT": "1"},  # one decoder
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = process.stdout.readline()
            address = f"http://127.0.0.1:{port}"
            assert f"{address}/docs" in said, said
            httpx.post(f"{address}/predict", content=content, timeout=250)
            yield process
        finally:
            process.kill()


def _half_sent(port, content):
    """Return a connection over which all but the last byte of a request went."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"  # noqa: E501
    connection.sendall(head.encode() + content[:-1])
    return connection


def _read_to_end(connection):
    with connection:
        return b"".join(iter(partial(connection.recv, 65536), b""))


@pytest.mark.skipif(os.name != "posix", reason="runs on POSIX only")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_after_the_work_in_hand(probe, drawn, tmp_path, number):
    images, y = list(drawn.images), drawn.target[:, :3]
    careful = OperatingPointClassifier(FrozenEstimator(probe), [1e-9] * 3)
    skops.io.dump(careful.fit(images, y), tmp_path / "model.skops")
    content, port = encoded(drawn.images[0]), _free_port()
    with _command(tmp_path, port, content) as process:
        clients = [_half_sent(port, content) for _ in range(64)]
        time.sleep(1)  # all are in hand
        # To all of its processes, as terminals and service managers do.
        os.killpg(process.pid, number)
        time.sleep(0.5)
        for client in clients:
            client.sendall(content[-1:])
        with ThreadPoolExecutor(64) as threads:
            answers = list(threads.map(_read_to_end, clients))
        process.wait(60)
        said = process.stdout.read()
    for answer in answers:
        given = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert given["model"] == "demo"
        assert list(given["predictions"][0]["decision"].values()) == [True] * 3
    assert process.returncode in (0, -number)
    assert "demonstration" in said
    assert "not for clinical use" in said
    assert "Traceback" not in said
    assert list(Path(tmp_path).iterdir()) == [tmp_path / "model.skops"]


@pytest.mark.skipif(os.name != "posix", reason="runs on POSIX only")
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_second_signal_ends_the_command_at_once(probe, drawn, tmp_path, number):
    skops.io.dump(probe, tmp_path / "model.skops")
    content, port = encoded(drawn.images[0]), _free_port()
    with _command(tmp_path, port, content) as process:
        with _half_sent(port, content):
            time.sleep(0.5)  # it is in hand
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            process.send_signal(number)
            process.wait(50)
            said = process.stdout.read()
    assert process.returncode in (0, -number)
    assert "Traceback" not in said
