"""Decisions by thresholds, of two classes and of several findings."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, cross_val_predict

from sk_medsiglip import LinearProbe
from sk_medsiglip.evaluation import OperatingPointClassifier, choose_operating_point


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4))
    return X, (X[:, :2] + 0.3 * rng.normal(size=(90, 2)) > 0).astype(int)


@pytest.mark.parametrize("names", [[0, 1], ["ill", "well"]])
def test_two_classes_as_scikit_learn_decides(data, names):
    X, Y = data
    y = np.array(names)[Y[:, 0]]
    inner = LogisticRegression()
    ours = OperatingPointClassifier(inner, 0.8).fit(X, y)
    theirs = FixedThresholdClassifier(inner, threshold=0.8, pos_label=names[1])
    np.testing.assert_array_equal(ours.predict(X), theirs.fit(X, y).predict(X))
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    assert ours.score(X, y) == theirs.score(X, y)


def test_findings_have_thresholds_by_name_or_in_order(data):
    X, Y = data
    table = pd.DataFrame(Y, columns=["b", "a"])
    probe = LinearProbe(Cs=[1.0]).fit(X, table)
    shares = probe.predict_proba(X)
    points = choose_operating_point(table, shares, sensitivity=0.9)
    points = dict(zip(["b", "a"], points.values(), strict=True))
    by_name = OperatingPointClassifier(FrozenEstimator(probe), points).fit(X, table)
    limits = [points[name].threshold for name in ("b", "a")]
    in_order = OperatingPointClassifier(FrozenEstimator(probe), limits).fit(X, table)
    expected = (shares >= limits).astype(int)
    for one in (by_name, in_order):
        np.testing.assert_array_equal(one.predict(X), expected)
        assert one.findings_.tolist() == ["b", "a"]
    sensitivity = (expected[Y == 1]).mean()
    assert sensitivity >= 0.89


def test_lists_of_probabilities_and_cross_validation(data):
    X, Y = data
    forest = RandomForestClassifier(5, random_state=0)
    decided = OperatingPointClassifier(forest, [0.4, 0.6])
    found = decided.fit(X, Y).predict(X)
    shares = np.stack([one[:, 1] for one in decided.predict_proba(X)], axis=1)
    np.testing.assert_array_equal(found, shares >= [0.4, 0.6])
    by_folds = cross_val_predict(
        OperatingPointClassifier(LinearProbe(Cs=[1.0]), 0.5), X, Y[:, 0], cv=3
    )  # noqa: E501
    assert set(by_folds) == {0, 1}
    clone(decided)


@pytest.mark.parametrize(
    ("points", "word"),
    [([0.5], "1 thresholds"), ({"a": 0.5}, "findings"), ([0.5, np.nan], "nan")],
)
def test_wrong_thresholds_are_refused(data, points, word):
    X, Y = data
    with pytest.raises(ValueError, match=word):
        OperatingPointClassifier(LinearProbe(Cs=[1.0]), points).fit(X, Y)


def test_three_classes_have_no_operating_point(data):
    X, Y = data
    with pytest.raises(ValueError, match="two classes"):
        OperatingPointClassifier(LogisticRegression(), 0.5).fit(X, Y.sum(axis=1))
