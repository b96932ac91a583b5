"""``EachLabel``: any classifier of one question, for several labels with blanks."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_medsiglip import LinearProbe
from sk_medsiglip.model_selection import EachLabel


@pytest.fixture(scope="module")
def findings():
    """Return rows, two findings that are not always known, and patients."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(120, 5))
    Y = (X[:, :2] + 0.5 * rng.normal(size=(120, 2)) > 0.3).astype(float)
    Y[rng.random(Y.shape) < 0.25] = np.nan
    return X, pd.DataFrame(Y, columns=["effusion", "device"]), np.arange(120) // 2


def test_each_label_is_the_classifier_on_its_known_rows(findings):
    X, Y, _ = findings
    Y = Y.assign(rest=1.0)
    both = EachLabel(KNeighborsClassifier(5)).fit(X, Y)
    known = Y["effusion"].notna().to_numpy()
    alone = KNeighborsClassifier(5).fit(X[known], Y["effusion"][known].astype(int))
    np.testing.assert_array_equal(
        both.predict_proba(X)[:, 0], alone.predict_proba(X)[:, 1]
    )
    assert (both.predict(X)[:, 2] == 1).all()
    assert not hasattr(both, "decision_function")


class Spy(LogisticRegression):
    """Notes how many rows it was fitted to, and of whom."""

    seen = []  # noqa: RUF012

    def fit(self, X, y):
        Spy.seen.append(X[:, -1].copy())
        return super().fit(X, y)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda head, cv: GridSearchCV(head, {"C": [0.1, 1.0]}, cv=cv),
        lambda head, cv: CalibratedClassifierCV(head, cv=cv),
        lambda head, cv: make_pipeline(
            StandardScaler().set_output(transform=None),
            GridSearchCV(head, {"C": [0.1, 1.0]}, cv=cv),
        ),
    ],
    ids=["grid", "calibrated", "pipeline"],
)
def test_groups_reach_folds_that_ask_for_them(routing, wrap, findings):
    X, Y, patients = findings
    marked = np.column_stack([X, patients])
    Spy.seen = []
    # Both rows of a patient are known, or none.
    Y = Y.where(Y.groupby(patients).transform("count") == 2)
    with sklearn.config_context(enable_metadata_routing=routing):
        EachLabel(wrap(Spy(), GroupKFold(3))).fit(marked, Y, groups=patients)
    assert len(Spy.seen) >= 6
    for rows in Spy.seen:
        _, counts = np.unique(rows, return_counts=True)
        assert (counts == 2).all()


def test_folds_that_ask_for_no_groups_get_none(findings):
    X, Y, patients = findings
    for made in [
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=StratifiedKFold(3)),
        AdaBoostClassifier(n_estimators=2),  # says that it cannot route anything
    ]:
        fitted = EachLabel(made).fit(X, Y, groups=patients)
        assert fitted.predict_proba(X).shape == (120, 2)


def test_each_label_hands_groups_on(findings):
    X, Y, patients = findings
    head = EachLabel(
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=GroupKFold(3))
    )
    assert head.fit(X, Y, groups=patients).predict(X).shape == (120, 2)
    with pytest.raises(ValueError, match="groups"):
        head.fit(X, Y)
    probes = EachLabel(LinearProbe()).fit(X, Y, groups=patients)
    known = Y["device"].notna().to_numpy()
    alone = LinearProbe().fit(
        X[known], Y["device"][known].astype(int), groups=patients[known]
    )
    np.testing.assert_allclose(probes.estimators_[1].coef_, alone.coef_)
