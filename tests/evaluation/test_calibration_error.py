"""The expected calibration error, against a loop over bins and by hand."""

import numpy as np
import pandas as pd
import pytest

from sk_medsiglip.evaluation import expected_calibration_error


def by_loop(came_true, probability, edges):
    """Return the formula of Guo et al., bin by bin: ((m - 1) / M, m / M]."""
    total = 0.0
    for at, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        inside = (probability > low) & (probability <= high)
        if at == 0:
            inside |= probability <= low
        if inside.any():
            gap = abs(came_true[inside].mean() - probability[inside].mean())
            total += inside.sum() / len(probability) * gap
    return total


def test_binary_by_hand():
    # Bins of a half: (.1, .3) -> 1 of 2 came true, mean .2; (.6, .8, .8) -> 2 of 3,
    # mean 2.2 / 3.
    error = expected_calibration_error(
        [0, 1, 0, 1, 1], [0.1, 0.3, 0.6, 0.8, 0.8], n_bins=2
    )
    assert error == pytest.approx(2 / 5 * (0.5 - 0.2) + 3 / 5 * (2.2 / 3 - 2 / 3))


def test_top_label_by_hand():
    p = [[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.0, 0.9]]
    # Likeliest a (right), b (wrong), c (right), each in a bin of its own of tenths.
    error = expected_calibration_error(
        ["a", "c", "c"], p, n_bins=10, classes=["a", "b", "c"]
    )
    assert error == pytest.approx((0.3 + 0.5 + 0.1) / 3)
    # One bin: mean confidence .7, two of three right.
    one = expected_calibration_error([0, 2, 2], p, n_bins=1)
    assert one == pytest.approx(0.7 - 2 / 3)


@pytest.mark.parametrize("n_bins", [1, 7, 15])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_equals_a_loop_over_bins(strategy, n_bins):
    rng = np.random.default_rng(n_bins)
    p = rng.beta(0.5, 2, 500)
    y = (rng.random(500) < p**2).astype(int)
    shares = np.linspace(0, 1, n_bins + 1)
    edges = shares if strategy == "uniform" else np.quantile(p, shares)
    assert expected_calibration_error(
        y, p, n_bins=n_bins, strategy=strategy
    ) == pytest.approx(by_loop(y, p, edges))
    many = rng.dirichlet(np.ones(4), 500)
    label = rng.integers(0, 4, 500)
    top = many.max(axis=1)
    edges = shares if strategy == "uniform" else np.quantile(top, shares)
    assert expected_calibration_error(
        label, many, n_bins=n_bins, strategy=strategy
    ) == pytest.approx(by_loop(many.argmax(axis=1) == label, top, edges))


def test_upper_ends_belong_to_their_bin():
    # .5 lies in (0, .5] with .4: 1 of 2 there, mean .45.
    error = expected_calibration_error([0, 1, 1], [0.4, 0.5, 0.9], n_bins=2)
    assert error == pytest.approx(2 / 3 * 0.05 + 1 / 3 * 0.1)
    assert expected_calibration_error([0, 1], [0.0, 1.0]) == 0
    assert expected_calibration_error([1, 0], [0.0, 1.0]) == 1


def test_two_columns_of_one_question_are_the_likeliest_class():
    rng = np.random.default_rng(0)
    p = rng.random(300)
    y = (rng.random(300) < p).astype(int)
    top = np.maximum(p, 1 - p)
    right = (p > 0.5) == y
    error = expected_calibration_error(y, np.column_stack([1 - p, p]))
    assert error == pytest.approx(by_loop(right, top, np.linspace(0, 1, 16)))
    assert error != pytest.approx(expected_calibration_error(y, p))


def test_findings_one_by_one_without_unknown_labels():
    rng = np.random.default_rng(0)
    p = rng.random((400, 3))
    y = (rng.random((400, 3)) < p).astype(float)
    y[rng.random((400, 3)) < 0.3] = np.nan
    each = expected_calibration_error(y, p, average=None)
    edges = np.linspace(0, 1, 16)
    for column in range(3):
        known = ~np.isnan(y[:, column])
        expected = by_loop(y[known, column], p[known, column], edges)
        assert each[column] == pytest.approx(expected)
    assert expected_calibration_error(y, p) == pytest.approx(each.mean())
    named = pd.DataFrame(y, columns=list("abc"))
    scores = pd.DataFrame(p, columns=list("abc"))
    assert expected_calibration_error(named, scores) == pytest.approx(each.mean())
    with pytest.raises(ValueError, match="compare"):
        expected_calibration_error(named, scores[["b", "a", "c"]])


def test_a_rounded_probability_may_lie_a_little_outside():
    above, below = 1 + 1e-7, -1e-7
    assert above > 1.0000000000000002 > 1
    assert expected_calibration_error([1, 0], [above, below]) == 0
    assert expected_calibration_error([1, 0], [[below, above], [above, below]]) == 0
    frame = pd.DataFrame({"a": [1.0000000000000002, 0.0]})
    assert expected_calibration_error(pd.DataFrame({"a": [1, 0]}), frame) == 0
    with pytest.raises(ValueError, match=r"got 1\.0001"):
        expected_calibration_error([1, 0], [1.0001, 0])


def test_errors_say_what_was_wrong():
    for arguments, match in [
        (([0, 1], [-0.1, 2.0]), "decision_function"),
        (([0, 1, -1], [0.1, 0.2, 0.3]), "got -1"),
        (([0, 1], [0.1, np.nan]), "hold NaN"),
        ((["a", "b"], np.full((2, 2), 0.5)), "pass classes="),
        (([0, 1, 1], np.full((2, 2), 0.5)), "inconsistent numbers"),
        (([0, 1], np.full((2, 2), np.nan)), "y_prob holds NaN"),
        ((np.full((2, 2), np.nan), np.full((2, 2), 0.5)), "label"),
    ]:
        with pytest.raises(ValueError, match=match):
            expected_calibration_error(*arguments)
    for wrong in [{"n_bins": 0}, {"strategy": "equal"}, {"average": "micro"}]:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            expected_calibration_error([0, 1], [0.2, 0.9], **wrong)
    with pytest.raises(ValueError, match="classes_"):
        expected_calibration_error([0, 1], np.full((2, 2), 0.5), classes=[0, 1, 2])
