"""Group ids, such as patients', are checked in one place for all."""

import numpy as np
import pandas as pd
import polars
import pytest

from sk_medsiglip._shared_groups import shared_groups
from sk_medsiglip._splits import check_groups, group_numbers


@pytest.mark.parametrize(
    "groups",
    [
        ["a", "b", "a"],
        [7, 9, 7.0],
        np.array([[1], [2], [1]]),
        pd.Series(["a", "b", "a"]),
        pd.Series([1, 2, 1], dtype="Int64"),
        pd.DataFrame({"patient": ["a", "b", "a"]}),
        polars.Series(["a", "b", "a"]),
        polars.DataFrame({"patient": [1, 2, 1]}),
        pd.Categorical(["a", "b", "a"]),
        pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-01"]),
        np.array(["a", "b", "a"], dtype=np.dtypes.StringDType()),
    ],
    ids=lambda groups: type(groups).__name__,
)
def test_group_numbers_of_every_container(groups):
    assert group_numbers(groups, 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "groups",
    [
        [1.0, np.nan, 2.0],
        ["a", None, "b"],
        ["a", np.nan, "b"],
        ["a", "  ", "b"],
        pd.Series(["a", pd.NA, "b"]),
        pd.Series([1, pd.NA, 2], dtype="Int64"),
        pd.Series(["a", None, "b"], dtype="category"),
        pd.DataFrame({"patient": ["a", None, "b"]}),
        polars.Series(["a", None, "b"]),
        np.array(["a", "", "b"]),
        np.array(["a", np.nan, "b"]),
        pd.Series(["a", None, "b"]).astype(object).astype(str),
        pd.to_datetime(["2026-01-01", None, "2026-01-02"]),
    ],
)
def test_missing_ids_are_counted_and_refused(groups):
    with pytest.raises(ValueError, match="groups is missing for 1 of 3"):
        check_groups(groups, 3)


@pytest.mark.parametrize("groups", [["7", 7], np.array(["a", 1], dtype=object)])
def test_ids_of_several_types_are_refused(groups):
    with pytest.raises(ValueError, match="several types"):
        check_groups(groups)


def test_wrong_length_and_shape_are_refused():
    with pytest.raises(ValueError, match="2 ids for 3 samples"):
        check_groups(["a", "b"], 3)
    with pytest.raises(ValueError, match="one id a sample"):
        check_groups(np.ones((3, 2)), 3)
    with pytest.raises(ValueError, match="one id a sample"):
        check_groups("patient", 3)


def test_ids_of_two_tables_are_compared_by_what_they_say():
    shared = shared_groups([7, 8, 9], ["7.0", b"8", " 9 ", "10"])
    assert (shared.shared, shared.doubtful, shared.n_blank) == ([7, 8, 9], [], 0)
    shared = shared_groups(["P07", "1.05", "a", "x"], ["p7", "1.5", "A", "x"])
    assert shared.shared == ["x"]
    assert shared.doubtful == [("P07", "p7"), ("a", "A")]
    assert not shared_groups(["007", "7"], ["7"]).doubtful  # 7 is found already
    (said,) = shared_groups(["007"], [7]).doubts("one", "two", name_ids=False)
    assert "7" not in said
    blank = shared_groups(pd.array([1, None], dtype="Int64"), ["<NA>", "None", ""])
    assert (blank.shared, blank.n_blank) == ([], 4)
    assert not shared_groups([1, 2], ["P1"]).is_alike
    assert shared_groups([1, 2], ["P1", "3"]).is_alike
