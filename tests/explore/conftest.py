"""Sessions on phantoms, and on made-up rows that need no model."""

import numpy as np
import pytest
from page_requests import Browser

from sk_medsiglip.explore import ExploreSession, explore

PROMPTS = {
    "effusion": {"positive": "pleural effusion", "negative": "no pleural effusion"},
    "device": {"positive": "a pacemaker", "negative": "no pacemaker"},
}
ONE = {"effusion": PROMPTS["effusion"]}
PAIR = {"positive": ["pleural effusion", "fluid"], "negative": ["no pleural effusion"]}


@pytest.fixture
def prompts():
    """Prompts of two findings."""
    return dict(PROMPTS)


@pytest.fixture
def truth(phantoms):
    """Labels of both findings."""
    names = list(phantoms.target_names)
    return phantoms.target[:, [names.index(name) for name in PROMPTS]]


@pytest.fixture
def make_session(phantoms, phantom_vectors):
    """Return a function that makes a session on phantoms."""

    def make(X=None, prompts=ONE, **parameters):
        X = phantom_vectors if X is None else X
        parameters.setdefault("groups", phantoms.groups[: len(X)])
        return ExploreSession(X, prompts=prompts, model="demo", **parameters)

    return make


@pytest.fixture
def rows():
    """60 rows of 30 patients, told apart by their first column."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 8)).astype(np.float32)
    X[:, 0] += np.where(np.arange(60) % 3 == 0, 3, -3)
    return X


@pytest.fixture
def patients():
    return np.arange(60) // 2


@pytest.fixture
def make_plain(rows, patients):
    """Return a function that makes a session without prompts, which needs no model."""

    def make(**parameters):
        X = parameters.pop("X", rows)
        parameters.setdefault("groups", patients)
        return ExploreSession(X, model="demo", **parameters)

    return make


@pytest.fixture
def answer():
    """Return a function that labels rows by the truth."""

    def label(session, rows, column, present):
        for value, word in ((0, "no"), (1, "yes")):
            session.label([r for r in rows if present[r] == value], column, word)

    return label


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a server and opens its page."""
    servers = []

    def run(X=None, **how):
        how.setdefault("folder", tmp_path / "results")
        server = explore(X, open_browser=False, block=False, **how)
        servers.append(server)
        browser = Browser(server.url)
        if "password" not in how:
            assert browser.open() == 200
        return server, browser

    yield run
    for server in servers:
        server.stop()


@pytest.fixture
def plain(start, rows, patients):
    """A page of 60 rows of 30 patients, which needs no model."""
    return start(rows, groups=patients, model="demo", locked=0.2)


@pytest.fixture
def study(start, phantoms, phantom_vectors):
    """A page of 100 phantoms with prompts."""
    return start(
        phantom_vectors[:100],
        images=list(phantoms.images[:100]),
        groups=phantoms.groups[:100],
        prompts={"effusion": PAIR},
        model="demo",
        locked=0.2,
    )
