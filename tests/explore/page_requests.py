"""Requests to a running page, as a browser sends them."""

import http.client
import json
from contextlib import closing
from urllib.parse import urlencode, urlsplit


class Browser:
    """A browser with at most one cookie, whose page asks what it is told to."""

    def __init__(self, url):
        self.url = urlsplit(url)
        self.cookie = None

    @property
    def origin(self):
        return f"http://{self.url.netloc}"

    def open(self):
        """Open the address that the server printed; return the status."""
        answer = self.request("GET", f"{self.url.path}?{self.url.query}")
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer.status

    def request(self, method, path, headers=None, body=None):
        """Send a request, with nothing but what it is given; return the answer."""
        address = self.url.hostname, self.url.port
        with closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
            sent = {"Cookie": self.cookie} if self.cookie else {}
            connection.request(method, path, body, sent | (headers or {}))
            answer = connection.getresponse()
            answer.content = answer.read()
        return answer

    def get(self, path, headers=None, **query):
        """Ask as the page does."""
        path = f"{self.url.path}{path}?{urlencode(query)}"
        fetched = {"Sec-Fetch-Site": "same-origin"}
        return self.request("GET", path, fetched | (headers or {}))

    def post(self, path, headers=None, **body):
        """Send JSON as the page does."""
        own = {
            "Content-Type": "application/json",
            "Origin": self.origin,
            "Sec-Fetch-Site": "same-origin",
        }
        content = json.dumps(body).encode()
        path = f"{self.url.path}{path}"
        return self.request("POST", path, own | (headers or {}), content)

    def ask(self, path, **query):
        """Return the JSON of an answer."""
        answer = self.get(path, **query)
        assert answer.status == 200, answer.content
        return json.loads(answer.content)

    def send(self, path, **body):
        """Return the JSON of the answer to JSON."""
        answer = self.post(path, **body)
        assert answer.status == 200, answer.content
        return json.loads(answer.content)
