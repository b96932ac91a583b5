"""Estimators that an earlier version of the package has saved still answer.

``python tests/test_saved_files.py NAME`` writes to ``tests/saved``: an estimator as a
joblib and a skops file, and its answers. Without a name it does so for those that
have no files yet.
"""

import pickle
import pickletools
import re
import sys
import warnings
import zipfile
from pathlib import Path

import joblib
import pytest
import sklearn
import skops.io
from sklearn.exceptions import InconsistentVersionWarning
from test_contract import answers, assert_same, estimators, fit, phantom_data

SAVED = Path(__file__).parent / "saved"
NAMES = list(estimators())
# A room, or the package itself, and a public name.
PUBLIC = re.compile(r"sk_medsiglip(\.[a-z]\w*)?\.[A-Za-z]\w*")


def place(name, suffix):
    return (SAVED / name.replace(" ", "_")).with_suffix(suffix)


def write(names):
    data = phantom_data()
    for name in names:
        fitted = fit(name, data)
        said = answers(name, fitted, data)
        joblib.dump(fitted, place(name, ".joblib"), compress=("xz", 6))
        joblib.dump(said, place(name, ".answers"), compress=("xz", 6))
        skops.io.dump(fitted, place(name, ".skops"), compression=zipfile.ZIP_DEFLATED)


@pytest.fixture(scope="module")
def data():
    return phantom_data()


def load(path):
    with warnings.catch_warnings():
        # Of scikit-learn's own estimators inside, where its version is another.
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        if path.suffix == ".joblib":
            return joblib.load(path)
        types = skops.io.get_untrusted_types(file=path)
        return skops.io.load(path, trusted=types)


@pytest.mark.parametrize("kind", ["joblib", "skops"])
@pytest.mark.parametrize("name", NAMES)
def test_files_saved_before_answer_as_they_did(name, kind, data):
    estimator = load(place(name, f".{kind}"))
    with sklearn.config_context(array_api_dispatch=False):
        said = joblib.load(place(name, ".answers"))
        assert_same(answers(name, estimator, data), said, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_saved_files_name_public_places(name):
    fitted = fit(name, phantom_data())
    names = set()
    previous = []
    for code, argument, _ in pickletools.genops(pickle.dumps(fitted)):
        if code.name in ("SHORT_BINUNICODE", "BINUNICODE"):
            previous = [*previous[-1:], argument]
        elif code.name == "STACK_GLOBAL":
            names.add(".".join(previous))
    names |= set(skops.io.get_untrusted_types(data=skops.io.dumps(fitted)))
    ours = {one for one in names if one.startswith("sk_medsiglip")}
    assert ours
    assert not [one for one in ours if not PUBLIC.fullmatch(one)]


def test_a_file_of_a_name_that_is_gone_says_what_to_do():
    old = b"\x80\x04csk_medsiglip.heads._probe_of_old\nLinearProbe\n."
    with pytest.raises(ModuleNotFoundError, match="earlier version"):
        pickle.loads(old)


if __name__ == "__main__":
    write(sys.argv[1:] or [n for n in NAMES if not place(n, ".answers").exists()])
