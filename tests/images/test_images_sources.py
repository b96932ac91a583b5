"""Sources that are no local files: URLs, archives; and what is known of each unread."""

import contextlib
import doctest
import io
import pickle
import socket
import sys
import tarfile
import threading
import traceback
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError, MissingDependencyError
from sk_medsiglip.images import Region, check_images, read_image, source_identity

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(pixels=PIXELS, format="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


class _Handler(BaseHTTPRequestHandler):
    """A real server with the faults that real servers have, one a path."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *arguments):
        """Write nothing to the terminal."""

    def _answer(self, body):
        server = self.server
        path = self.path.partition("?")[0]
        server.asked.append((self.command, self.path, self.headers.get("Range")))
        if path == "/hangs.png":
            server.released.wait(30)
            self.close_connection = True
            return
        if path in server.refused:
            self.send_error(server.refused[path])
            return
        if path in server.sent_on:
            self.send_response(302)
            self.send_header("Location", server.sent_on[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = server.files.get(path)
        if content is None:
            self.send_error(404)
            return
        if path == "/never-ends":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(OSError):
                while body:
                    self.wfile.write(content)
                    server.n_sent += len(content)
            self.close_connection = True
            return
        if path == "/endless.png":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            if body:
                self.wfile.write(content)
            self.close_connection = True
            return
        span = self.headers.get("Range") if path in server.with_ranges else None
        if span:
            first, last = (int(n) for n in span.removeprefix("bytes=").split("-"))
            piece = content[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        else:
            piece = content
            self.send_response(200)
        length = server.lengths.get(path, len(piece))
        self.send_header("Content-Length", str(length))
        for name, value in server.headers.get(path, {}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(piece)
            self.close_connection = length != len(piece)


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.asked, server.released = [], threading.Event()
        server.files = {"/a.png": encoded()}
        server.lengths, server.headers, server.refused = {}, {}, {}
        server.sent_on, server.n_sent = {}, 0
        server.with_ranges = set()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def memory():
    file_system = fsspec.filesystem("memory")
    yield file_system
    file_system.rm("/", recursive=True)


def error_of(source, **parameters):
    with pytest.raises(ImageReadError) as caught:
        read_image(source, **parameters)
    return caught.value


def test_http(server):
    np.testing.assert_array_equal(read_image(f"{server.url}/a.png"), PIXELS)
    # One request: the content, and nothing asked before it.
    assert [command for command, _, _ in server.asked] == ["GET"]


def test_memory_zip_and_tar(memory, tmp_path):
    memory.pipe("/scans/a.png", encoded())
    np.testing.assert_array_equal(read_image("memory://scans/a.png"), PIXELS)

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("scans/a.png", encoded())
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        entry = tarfile.TarInfo("scans/a.png")
        entry.size = len(encoded())
        archive.addfile(entry, io.BytesIO(encoded()))
    memory.put(str(tmp_path / "x.zip"), "/x.zip")
    for url in (
        f"zip://scans/a.png::{tmp_path}/x.zip",
        f"zip://scans/a.png::file://{tmp_path}/x.zip",
        "zip://scans/a.png::memory://x.zip",
        f"tar://scans/a.png::{tmp_path}/x.tar",
    ):
        np.testing.assert_array_equal(read_image(url), PIXELS)

    assert error_of(f"zip://b.png::{tmp_path}/x.zip").reason == (
        "there is no such file"
    )
    assert error_of(f"zip://scans::{tmp_path}/x.zip").reason == "it is a directory"
    assert "no such file" in error_of(f"zip://a.png::{tmp_path}/y.zip").reason


def test_zip_behind_http(server, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", encoded())
    server.files["/x.zip"] = (tmp_path / "x.zip").read_bytes()
    url = f"zip://a.png::{server.url}/x.zip"
    error = error_of(url)
    assert "only whole files" in error.reason
    assert "simplecache::" in error.hint
    server.with_ranges.add("/x.zip")
    np.testing.assert_array_equal(read_image(url), PIXELS)


def test_file_url_is_a_path(tmp_path):
    path = tmp_path / "with space.png"
    path.write_bytes(encoded())
    np.testing.assert_array_equal(read_image(path.as_uri()), PIXELS)
    assert source_identity(path.as_uri()) == source_identity(path)


def test_errors_of_servers_say_what_is_wrong(server, memory):
    server.refused = {"/secret.png": 403, "/login.png": 401, "/broken.png": 500}
    server.files["/cut.png"] = encoded()[:100]
    server.lengths["/cut.png"] = 5000
    server.files["/page"] = b"\n<!DOCTYPE html><html>log in</html>"
    server.files["/empty.png"] = b""
    expected = {
        "/gone.png": "there is no such file",
        "/secret.png": r"the server refuses access \(HTTP 403\).*credentials",
        "/login.png": r"the server refuses access \(HTTP 401\).*credentials",
        "/broken.png": r"the server cannot deliver it \(HTTP 500\)",
        "/cut.png": "the connection was interrupted",
        "/page": "the server sent a web page, not an image",
        "/empty.png": "it is empty",
    }
    for path, message in expected.items():
        with pytest.raises(ImageReadError, match=message):
            read_image(server.url + path)

    memory.pipe("/scans/a.png", encoded())
    assert error_of("memory://scans/b.png").reason.startswith("there is no such file")
    assert error_of("memory://scans").reason == "it is a directory"
    assert "not supported" in error_of("nosuch://a/b.png").reason


def test_no_server_and_no_host():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        port = server.server_port
    # Nobody listens there any more.
    error = error_of(f"http://127.0.0.1:{port}/a.png")
    assert error.reason == "there is no connection to the server"
    error = error_of("http://no-such-host.invalid/a.png")
    assert error.reason == "there is no connection to the server"


def test_silent_server_ends_in_an_error(server, monkeypatch):
    monkeypatch.setattr("sk_medsiglip.images._urls.SILENCE_SECONDS", 0.2)
    error = error_of(f"{server.url}/hangs.png")
    assert error.reason == "the server did not answer in time"
    assert source_identity(f"{server.url}/hangs.png") is None


def test_size_is_bounded_before_and_during_the_download(server, memory, monkeypatch):
    server.files["/long.png"] = b""
    server.lengths["/long.png"] = 10**15
    reason = error_of(f"{server.url}/long.png", frame=0).reason
    assert reason.endswith(" bytes, and is not downloaded")

    server.files["/endless.png"] = encoded()
    np.testing.assert_array_equal(read_image(f"{server.url}/endless.png"), PIXELS)
    monkeypatch.setattr("sk_medsiglip.images._urls.MAX_FILE_BYTES", 1000)
    assert "larger than 1000" in error_of(f"{server.url}/endless.png").reason
    memory.pipe("/a.png", encoded())
    assert "larger than 1000" in error_of("memory://a.png").reason


def test_a_body_without_end_is_left(server):
    server.files["/never-ends"] = bytes(2**16)
    assert "it is not an image file" in error_of(f"{server.url}/never-ends").reason
    assert server.n_sent < 2**26
    server.files["/never-ends"] = encoded() + bytes(2**16)
    error = error_of(f"{server.url}/never-ends", max_pixels=1000)
    assert f"larger than {2**24 + 8000} bytes" in error.reason
    assert server.n_sent < 2**27


def test_only_the_host_that_was_passed_is_asked(server):
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    server.sent_on = {
        "/here.png": "/a.png",
        "/there.png": f"{elsewhere}/a.png?sig=s3cret",
    }
    np.testing.assert_array_equal(read_image(f"{server.url}/here.png"), PIXELS)
    asked = len(server.asked)
    url = f"{server.url}/there.png"
    for source in (url, Region(url, 0, 0, 2, 2)):
        error = error_of(source)
        assert "redirects to http://localhost" in error.reason
        assert "s3cret" not in "".join(traceback.format_exception(error))
    assert source_identity(url) is None
    assert all(path == "/there.png" for _, path, _ in server.asked[asked:])


@pytest.mark.parametrize("query", ["sig=ab::c", "sig=%3A%3a+%2Fx", "a=1&b=::"])
def test_two_colons_in_a_url_are_no_chain(query, server, tmp_path):
    server.files["/a::b.png"] = encoded()
    for path in ("/a.png", "/a::b.png"):
        np.testing.assert_array_equal(read_image(f"{server.url}{path}?{query}"), PIXELS)
        assert server.asked[-1][1].partition("?")[0] == path
    assert parse_qs(server.asked[-1][1].partition("?")[2]) == parse_qs(query)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", encoded())
    server.files["/x.zip"] = (tmp_path / "x.zip").read_bytes()
    server.with_ranges = {"/x.zip"}
    read_image(f"zip://a.png::{server.url}/x.zip?{query}")


def test_ipv6():
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6

    try:
        server = Server(("::1", 0), _Handler)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        server.asked, server.refused, server.sent_on = [], {}, {}
        server.files, server.lengths, server.headers = {"/a.png": encoded()}, {}, {}
        server.with_ranges = set()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"http://[::1]:{server.server_port}"
            np.testing.assert_array_equal(read_image(f"{url}/a.png?sig=s::x"), PIXELS)
            error = error_of(f"{url}/gone.png?sig=s3cret")
            assert f"{url}/gone.png" in str(error)
            assert "s3cret" not in str(error)
        finally:
            server.shutdown()
            thread.join()


def test_no_secret_in_errors_tables_or_tracebacks(server):
    secret = "t0ps3cret"
    host = server.url.removeprefix("http://")
    server.refused["/no.png"] = 403
    server.files["/cut.png"], server.lengths["/cut.png"] = encoded()[:100], 5000
    for path in ("/gone.png", "/no.png", "/cut.png"):
        url = f"http://user:{secret}@{host}{path}?X-Amz-Signature={secret}"
        for source in (url, Region(url, 0, 0, 2, 2)):
            error = error_of(source)
            text = "".join(traceback.format_exception(error))
            assert secret not in text
            assert error.__cause__ is None
            assert error.__context__ is None
            assert secret not in str(pickle.loads(pickle.dumps(error)))
            assert path in str(error)
        table = check_images([url, Region(url, 0, 0, 2, 2)])
        assert secret not in table.to_csv()
    # The password was sent all the same, as the user wanted.
    server.files["/a.png"] = encoded()
    read_image(f"http://user:{secret}@{host}/a.png?token={secret}")
    assert server.asked[-1][1] == f"/a.png?token={secret}"


def test_missing_packages_give_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingDependencyError, match='"s3fs"'):
        read_image("s3://bucket/a.png")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingDependencyError, match=r'"sk-medsiglip\[remote\]"'):
        read_image("https://host/a.png")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingDependencyError, match=r'"sk-medsiglip\[remote\]"'):
        read_image("memory://a.png")


def test_a_path_that_was_a_url():
    error = error_of(Path("https://host/a.png"))
    assert "URLs as str" in error.hint


def test_identity_of_urls_follows_the_content(server, memory):
    url = f"{server.url}/a.png"
    # Neither version nor time: a changed file could not be told from this one.
    assert source_identity(url) is None
    server.headers["/a.png"] = {"ETag": '"1"'}
    path, first = source_identity(url)
    assert path is None
    assert source_identity(url) == (None, first)
    server.headers["/a.png"] = {"ETag": '"2"'}
    assert source_identity(url)[1] != first
    assert source_identity(f"{server.url}/gone.png") is None

    server.files["/b.png"] = server.files["/a.png"]
    server.headers["/b.png"] = {"ETag": '"2"'}
    assert source_identity(f"{server.url}/b.png") != source_identity(url)
    # Another signature is the same file, another query is not.
    signed = [source_identity(f"{url}?v=1&X-Amz-Signature={i}") for i in "ab"]
    assert signed[0] == signed[1] != source_identity(f"{url}?v=2&X-Amz-Signature=a")

    memory.pipe("/a.png", encoded())
    before = source_identity("memory://a.png")
    assert before == source_identity("memory://a.png")
    memory.rm("/a.png")
    memory.pipe("/a.png", encoded())
    assert before != source_identity("memory://a.png")


def test_identity_asks_without_downloading(server):
    server.headers["/a.png"] = {"Last-Modified": "Mon, 05 Jan 2026 10:00:00 GMT"}
    assert source_identity(f"{server.url}/a.png") is not None
    assert [command for command, _, _ in server.asked] == ["HEAD"]


def test_identity_of_an_archive_member_is_the_archive_and_the_name(tmp_path):
    a, b = (f"zip://{name}.png::{tmp_path}/x.zip" for name in "ab")
    path, member = source_identity(a)
    assert path == str(tmp_path / "x.zip")
    assert source_identity(b)[0] == path
    assert source_identity(b)[1] != member


def test_identity_of_content():
    array = np.arange(24, dtype=np.uint16).reshape(4, 6)
    assert source_identity(array) == source_identity(array.copy(order="F"))
    different = [
        array.reshape(6, 4),
        array.view(np.int16),
        array.astype(">u2"),
        array + 1,
        array.tobytes(),
        array.tobytes()[:-1],
    ]
    known = {source_identity(other) for other in (array, *different)}
    assert len(known) == 7
    assert all(path is None for path, _ in known)
    assert source_identity(b"abc") == source_identity(bytearray(b"abc"))
    assert source_identity(array[::2, ::2]) == source_identity(array[::2, ::2].copy())
    # What numbers alone do not say.
    assert source_identity(np.ma.masked_less(array, 3)) is None
    assert source_identity(Image.fromarray(PIXELS)) is None
    assert source_identity(io.BytesIO(b"abc")) is None


def test_identity_of_regions(tmp_path):
    path = tmp_path / "a.png"
    whole = source_identity(path)
    regions = [
        Region(path, 0, 0, 5, 5),
        Region(path, 1, 0, 5, 5),
        Region(path, 0, 0, 5, 5, level=1),
    ]
    known = [source_identity(region) for region in regions]
    assert len({whole, *known}) == 4
    assert {path for path, _ in known} == {whole[0]}
    assert source_identity(Region(path, 0, 0, 5, 5)) == known[0]
    assert source_identity(Region(io.BytesIO(b"abc"), 0, 0, 5, 5)) is None
    inner = Region(regions[0], 0, 0, 2, 2)
    assert source_identity(inner)[0] == whole[0]
    assert source_identity(inner) not in known


def test_many_threads_may_fetch_at_once(server):
    from concurrent.futures import ThreadPoolExecutor

    contents = {}
    for i in range(24):
        pixels = np.full((4, 5, 3), i, np.uint8)
        contents[f"/{i}.png"] = pixels
        server.files[f"/{i}.png"] = encoded(pixels)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda path: read_image(server.url + path), contents))
    for pixels, expected in zip(read, contents.values(), strict=True):
        np.testing.assert_array_equal(pixels, expected)


def test_region_of_a_url_fetches_only_its_tiles(server):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    pixels = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), np.uint8)
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, tile=(128, 128), photometric="rgb")
    server.files["/s.tif"] = stream.getvalue()
    region = Region(f"{server.url}/s.tif", 200, 300, 60, 50)
    # A server that knows no ranges gives the whole; the result is the same.
    np.testing.assert_array_equal(read_image(region), pixels[300:350, 200:260])

    server.with_ranges.add("/s.tif")
    server.asked.clear()
    np.testing.assert_array_equal(read_image(region), pixels[300:350, 200:260])
    spans = [span for command, _, span in server.asked if command == "GET"]
    assert None not in spans
    fetched = 0
    for span in spans:
        first, last = span.removeprefix("bytes=").split("-")
        fetched += int(last) - int(first) + 1
    assert fetched < len(server.files["/s.tif"]) * 0.6


def test_the_how_to_runs(tmp_path, monkeypatch):
    for name in ("tifffile", "imagecodecs", "datasets"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "sources.md"
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert result.failed == 0
    assert result.attempted > 15
