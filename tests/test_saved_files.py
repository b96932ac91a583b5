"""Estimators that an earlier version of the package has saved still answer.

``python tests/test_saved_files.py`` writes ``tests/saved``: a pickle and a skops file
of every public estimator, and what each of them answered.
"""

import pickle
import pickletools
import re
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


def write():
    SAVED.mkdir(exist_ok=True)
    data = phantom_data()
    said = {}
    for name in NAMES:
        fitted = fit(name, data)
        said[name] = answers(name, fitted, data)
        path = SAVED / name.replace(" ", "_")
        joblib.dump(fitted, path.with_suffix(".joblib"), compress=("xz", 6))
        skops.io.dump(
            fitted, path.with_suffix(".skops"), compression=zipfile.ZIP_DEFLATED
        )
    joblib.dump(said, SAVED / "answers.joblib", compress=("xz", 6))


@pytest.fixture(scope="module")
def data():
    return phantom_data()


@pytest.fixture(scope="module")
def said():
    return joblib.load(SAVED / "answers.joblib")


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
def test_files_saved_before_answer_as_they_did(name, kind, data, said):
    estimator = load(SAVED / f"{name.replace(' ', '_')}.{kind}")
    with sklearn.config_context(array_api_dispatch=False):
        assert_same(answers(name, estimator, data), said[name], atol=1e-4)


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
    write()
