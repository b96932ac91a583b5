"""Metadata that goes with a label and can be read from the rows."""

import numpy as np
import pandas as pd
import pytest

from sk_medsiglip.audit import find_shortcuts

EFFUSION = 1


@pytest.fixture(scope="module")
def planted(phantom_vectors, findings, patients):
    """Rows on which a scanner leaves a trace, and a table of metadata.

    ``scanner`` goes with effusion, ``site`` leaves a trace but goes with nothing, and
    ``sex`` goes with effusion but leaves no trace.
    """
    rng = np.random.default_rng(0)
    names, member = np.unique(patients, return_inverse=True)
    y = findings[:, EFFUSION]
    label = np.zeros(len(names))
    label[member] = y
    agrees = rng.random((2, len(names))) < 0.8
    scanner, sex = np.where(agrees, label, 1 - label)
    site = rng.integers(0, 2, len(names))
    X = phantom_vectors.astype(np.float64)
    trace = rng.normal(size=(2, X.shape[1])) * X.std(axis=0)
    X = X + np.outer(scanner[member], trace[0]) + np.outer(site[member], trace[1])
    metadata = pd.DataFrame(
        {
            "scanner": np.where(scanner, "portable", "fixed")[member],
            "site": site[member],
            "sex": np.where(sex, "f", "m")[member],
            "age": rng.normal(60, 10, len(names))[member],
        }
    )
    return X, y, metadata


def test_only_what_goes_with_the_label_and_can_be_read(planted, patients):
    from statsmodels.stats.multitest import multipletests

    X, y, metadata = planted
    found = find_shortcuts(X, y, metadata, groups=patients)
    assert found["column"][0] == "scanner"
    assert found["shortcut"].tolist() == [True, False, False, False]
    by = found.set_index("column")
    assert by["p_readable"]["site"] < 0.01 < by["p_association"]["site"]
    assert by["p_association"]["sex"] < 0.01 < by["p_readable"]["sex"]
    assert by["auc_readable"]["scanner"] > 0.95
    assert by["most"]["scanner"] == "portable"
    of_positives = (metadata["scanner"][y == 1] == "portable").mean()
    assert by["share_of_positives"]["scanner"] == pytest.approx(of_positives)
    assert by["n_levels"]["age"] == 4
    larger = found[["p_association", "p_readable"]].max(axis=1)
    expected = multipletests(larger, method="holm")[1]
    assert np.allclose(found["p_value"], expected)


def test_results_do_not_depend_on_order_or_names(planted, patients):
    X, y, metadata = planted
    found = find_shortcuts(X, y, metadata, groups=patients, n_permutations=199)
    order = np.random.default_rng(1).permutation(len(y))
    names = np.array([f"{hash(one) % 10007}-{one}" for one in patients])
    again = find_shortcuts(
        X[order],
        y[order],
        metadata.iloc[order, ::-1],
        groups=names[order],
        n_permutations=199,
    )
    pd.testing.assert_frame_equal(found, again, atol=0.006, rtol=0)
    seeded = find_shortcuts(
        X, y, metadata, groups=patients, n_permutations=199, random_state=1
    )
    assert not seeded["p_readable"].equals(found["p_readable"])


def test_chance_is_not_flagged():
    """Rows, labels and columns without relation: p-values are those of chance."""
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(60), 2)
    X = rng.normal(size=(120, 6)) + rng.normal(size=(60, 6))[patients]
    y = (rng.random(60) < 0.5)[patients]
    metadata = {k: rng.integers(0, 2, 60)[patients] for k in range(60)}
    found = find_shortcuts(X, y, metadata, groups=patients, n_permutations=99)
    assert not found["shortcut"].any()
    for name in ("p_association", "p_readable"):
        assert 0.01 < (found[name] <= 0.1).mean() < 0.25, name


def test_columns_of_images_and_of_patients_are_read():
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(60), 2)
    X = rng.normal(size=(120, 6))
    y = (rng.random(60) < 0.5)[patients]
    view, scanner = np.arange(120) % 2, rng.integers(0, 2, 60)[patients]
    X[:, 0] += 2 * view
    X[:, 1] += 2 * scanner
    found = find_shortcuts(
        X, y, {"view": view, "scanner": scanner}, groups=patients, n_permutations=99
    )
    assert (found["p_readable"] == 0.01).all()
    assert (found["auc_readable"] > 0.8).all()


def test_findings_with_blanks_and_classes(planted, patients, findings):
    X, y, metadata = planted
    table = pd.DataFrame({"effusion": y, "nodule": findings[:, 4]})
    table.loc[::5, "effusion"] = np.nan
    table["none"] = 0.0
    found = find_shortcuts(X, table, metadata[["scanner"]], groups=patients)
    assert found["finding"].tolist() == ["effusion", "nodule"]
    assert found["shortcut"].tolist() == [True, False]
    assert list(found.attrs["left_out"]) == ["none"]
    classes = np.where(y == 1, "wet", np.where(findings[:, 4] == 1, "nodule", "clear"))
    found = find_shortcuts(X, classes, metadata[["scanner"]], groups=patients)
    assert set(found["finding"]) == {"wet", "nodule", "clear"}
    assert found.set_index("finding")["shortcut"]["wet"]


def test_kinds_of_columns(planted, patients):
    X, y, metadata = planted
    n, portable = len(y), metadata["scanner"] == "portable"
    number = np.unique(patients, return_inverse=True)[1]
    blank = portable.astype(object)
    blank[::6] = None
    columns = pd.DataFrame(
        {
            "bool": portable,
            "category": metadata["scanner"].astype("category"),
            "blanks": blank,
            "only if so": np.where(portable, 1.0, np.nan),
            "date": pd.Timestamp("2026-01-01")
            + pd.to_timedelta(1000 * portable + np.arange(n) % 7, unit="D"),
            "number": 100.0 * portable + number / 100,
            "rare": np.where(number < 3, "odd", metadata["scanner"]),
            "patient": patients,
            "patient number": number,
            "row": np.arange(n),
            "one": "x",
            "empty": np.nan,
        }
    )
    found = find_shortcuts(X, y, columns, groups=patients, n_permutations=1500)
    by = found.set_index("column")
    tested = ["bool", "category", "blanks", "only if so", "date", "number", "rare"]
    assert by["shortcut"][tested].all()
    assert not by["shortcut"].drop(tested).any()
    assert by["n_levels"][["bool", "blanks", "rare"]].tolist() == [2, 3, 2]
    assert by["n_levels"][["date", "number"]].between(3, 4).all()
    assert "'odd'" in by["note"]["rare"]
    for name in ("patient", "patient number", "row"):
        assert "stands for the patient" in by["note"][name]
    assert "only value" in by["note"]["one"]
    assert "blank" in by["note"]["empty"]
    assert by["p_value"].drop(tested).isna().all()


def test_unreadable_rows_and_no_groups(planted):
    X, y, metadata = planted
    X = X.copy()
    X[:3] = np.nan
    found = find_shortcuts(X, y, metadata[["scanner"]], n_permutations=99)
    assert found["column"].tolist() == ["scanner"]
    assert "3 of 400" in found.attrs["notes"][0]


def test_words_for_a_shortcut(phantom_vectors, findings, patients):
    """A column that is another finding is named by it."""
    heart, y = findings[:, 0], findings[:, 0].copy()
    y[::11] = 1 - y[::11]
    found = find_shortcuts(
        phantom_vectors,
        y,
        {"mark": np.where(heart, "yes", "no")},
        groups=patients,
        n_permutations=199,
        prompts=["an enlarged heart", "pleural effusion", "a nodule"],
        model="demo",
    )
    assert found["words"][0] == "yes: an enlarged heart"


def test_errors_say_what_to_do(planted, patients):
    X, y, metadata = planted
    with pytest.raises(ValueError, match="399 rows"):
        find_shortcuts(X, y, metadata[:-1])
    with pytest.raises(ValueError, match="columns named"):
        find_shortcuts(X, y, pd.concat([metadata, metadata], axis=1))
    with pytest.raises(ValueError, match="no columns"):
        find_shortcuts(X, y, metadata[[]])
    with pytest.raises(ValueError, match="between"):
        find_shortcuts(X, y, metadata, level=5)
    with pytest.raises(ValueError, match="inconsistent"):
        find_shortcuts(X, y[:-1], metadata)
    with pytest.raises(ValueError, match="label is 1"):
        find_shortcuts(X, np.ones((400, 2)), metadata)
