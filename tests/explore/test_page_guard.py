"""Who may ask the server of the page, and who may not."""

import pytest
from page_requests import Browser

from sk_medsiglip.explore import explore


def test_the_address_opens_the_page_once(plain):
    server, browser = plain
    assert "token" not in server.url
    stranger = Browser(browser.url.geturl())
    assert stranger.open() == 403
    wrong = f"{browser.url.path}?token=wrong"
    assert stranger.request("GET", wrong).status == 403
    assert browser.open() == 200  # the owner may go back to it
    assert browser.get("").status == 200


def test_the_cookie_is_for_this_page_alone(rows, tmp_path):
    server = explore(
        rows, model="demo", folder=tmp_path, open_browser=False, block=False
    )
    browser = Browser(server.url)
    address = f"{browser.url.path}?{browser.url.query}"
    parts = browser.request("GET", address).headers["set-cookie"].split("; ")
    server.stop()
    assert {"HttpOnly", "SameSite=strict", f"Path={browser.url.path}"} <= set(parts)
    assert len(browser.url.path) > 16


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "state", {"Cookie": ""}, 403),
        ("GET", "", {"Cookie": ""}, 403),
        ("GET", "", {"Cookie": "sk_medsiglip_explore=wrong"}, 403),
        ("GET", "image?row=0", {"Cookie": "sk_medsiglip_explore="}, 403),
        ("GET", "state", {"Host": "evil.example"}, 421),
        ("GET", "state", {"Host": "127.0.0.1.evil.example:80"}, 421),
        ("GET", "state", {"Host": "[::1"}, 421),
        ("GET", "state", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "image?row=0", {"Sec-Fetch-Site": "same-site"}, 403),
        ("GET", "state", {"Origin": "http://evil.example"}, 403),
        ("GET", "state", {"Origin": "null"}, 403),
        ("POST", "undo", {}, 403),
        ("POST", "undo", {"Origin": "http://127.0.0.1:1"}, 403),
        ("POST", "undo", {"Origin": "null"}, 403),
        ("POST", "undo", {"Origin": "OWN", "Sec-Fetch-Site": "none"}, 403),
        ("POST", "undo", {"Origin": "OWN", "Content-Type": "text/plain"}, 415),
        ("POST", "undo", {"Origin": "OWN", "Content-Length": "9999999999"}, 413),
        ("POST", "state", {"Origin": "OWN"}, 405),
        ("PUT", "label", {"Origin": "OWN"}, 405),
        ("OPTIONS", "label", {"Origin": "http://evil.example"}, 403),
        ("GET", "../state", {}, 404),
        ("GET", "..%2f..%2f..%2fetc%2fpasswd", {}, 404),
        ("GET", "files/..%2f..%2fsecret", {}, 404),
        ("GET", "files/labels.jsonl", {}, 404),
        ("GET", "_page.py", {}, 404),
        ("GET", "/state", {}, 404),
    ],
)
def test_others_are_refused(plain, method, path, headers, status):
    _, browser = plain
    headers = {k: browser.origin if v == "OWN" else v for k, v in headers.items()}
    answer = browser.request(method, browser.url.path + path, headers)
    assert answer.status == status
    assert b"n_rows" not in answer.content


def test_other_paths_of_the_port_are_empty(plain):
    _, browser = plain
    for path in ("/", "/state", "/autoload.js", f"{browser.url.path[:-1]}", "//"):
        answer = browser.request("GET", path)
        assert answer.status == 404
        assert answer.headers["set-cookie"] is None


def test_every_answer_keeps_the_browser_strict(plain):
    _, browser = plain
    for answer in (browser.get(""), browser.get("state"), browser.get("none")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["access-control-allow-origin"] is None
        assert answer.headers["server"] is None


def test_bodies_are_bounded(plain):
    _, browser = plain
    own = {"Content-Type": "application/json", "Origin": browser.origin}
    pieces = (b" " * 2**16 for _ in range(20))  # of unknown length together
    path = f"{browser.url.path}undo"
    assert browser.request("POST", path, own, pieces).status == 413
    for body in (b"{", b"[]", b"1", b"\xff", b"[" * 100_000):
        assert browser.request("POST", path, own, body).status == 400
    assert browser.post("view", text="x" * 5000).status == 400
    assert browser.ask("state")["view"] == {}


def test_a_websocket_is_closed(plain):
    _, browser = plain
    headers = {
        "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    answer = browser.request("GET", f"{browser.url.path}state", headers)
    assert answer.status != 101


def test_a_password_opens_the_page_where_others_can_reach_it(start, rows):
    with pytest.raises(ValueError, match="password"):
        explore(rows, model="demo", host="0.0.0.0", block=False)
    with pytest.warns(UserWarning, match="distribution"):
        server, browser = start(
            rows, model="demo", host="0.0.0.0", password="pass wörd"
        )
    assert "token" not in server.url
    form = browser.request("GET", browser.url.path)
    assert form.status == 200
    assert b"password" in form.content
    assert browser.get("state").status == 403
    own = {
        "Content-Type": "application/x-www-form-urlencoded", "Origin": browser.origin,
    }  # fmt: skip
    path = browser.url.path
    wrong = browser.request("POST", path, own, "password=pass")
    assert (wrong.status, wrong.headers["set-cookie"]) == (200, None)
    other = own | {"Origin": "http://evil.example"}
    assert browser.request("POST", path, other, "password=x").status == 403
    right = browser.request("POST", path, own, "password=pass+w%C3%B6rd")
    browser.cookie = right.headers["set-cookie"].partition(";")[0]
    assert browser.ask("state")["n_rows"] == 60


def test_the_address_is_in_no_log_and_no_command_line(start, rows, caplog, capsys):
    caplog.set_level("DEBUG")
    server, browser = start(rows, model="demo")
    browser.send("label", rows=[0], column="label", value="yes")
    assert browser.url.path not in caplog.text
    assert capsys.readouterr().out.count(browser.url.query) == 1
