"""Filters: what they may say, and that they mean one thing whatever holds the rows."""

import datetime as dt
import random
import re
import sqlite3

import numpy as np
import pandas as pd
import pytest

from sk_medsiglip.exceptions import MissingDependencyError
from sk_medsiglip.retrieval import FilterError, ImageRetriever

COLUMNS = {
    "id": "integer",
    "source": "text",
    "age": "integer",
    "dose": "number",
    "modality": "text",
    "frontal": "boolean",
    "taken": "time",
    "stored": "time_utc",
    "study date": "text",
}

TEXTS = [
    "CT", "ct", "MR", "O'Brien", 'say "aah"', "100%", "a_b", "axb", "back\\slash",
    "naïve", "日本", "", " ", "null", "'; drop table images; --", None,
]  # fmt: skip
INTEGERS = [0, -1, 60, 61, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), None]
NUMBERS = [0.0, -0.5, 0.1, 60.5, 1e300, -1e300, np.inf, -np.inf, np.nan, None]
TIMES = [
    dt.datetime(2020, 1, 1),
    dt.datetime(2020, 1, 1, 12, 30, 5, 123456),
    dt.datetime(1600, 2, 29),
    dt.datetime(9999, 12, 31, 23, 59),
    None,
]


def make_metadata(n_rows, seed=0):
    rng = random.Random(seed)
    zoned = [t and t.replace(tzinfo=dt.UTC) for t in TIMES]
    return pd.DataFrame(
        {
            "age": pd.array([rng.choice(INTEGERS) for _ in range(n_rows)], "Int64"),
            "dose": pd.Series(
                [rng.choice(NUMBERS) for _ in range(n_rows)], dtype=float
            ),
            "modality": [rng.choice(TEXTS) for _ in range(n_rows)],
            "frontal": [rng.choice([True, False, None]) for _ in range(n_rows)],
            "taken": pd.Series(
                [rng.choice(TIMES) for _ in range(n_rows)], dtype="datetime64[us]"
            ),
            "stored": pd.Series(
                [rng.choice(zoned) for _ in range(n_rows)],
                dtype=pd.DatetimeTZDtype("us", "UTC"),
            ),
            "study date": [rng.choice(["a.b", "2020", None]) for _ in range(n_rows)],
        }
    )


class RandomFilter:
    """A filter as text, and what it is of one row: True, False or None (unknown)."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def make(self, depth=3):
        pick = self.rng.random()
        if depth and pick < 0.25:
            parts = [self.make(depth - 1) for _ in range(self.rng.choice([2, 2, 3]))]
            word = self.rng.choice(["and", "or"])
            text = f" {word} ".join(f"({t})" for t, _ in parts)
            truths = [f for _, f in parts]
            return text, lambda row: combine(word, [f(row) for f in truths])
        if depth and pick < 0.4:
            text, truth = self.make(depth - 1)
            return f"not ({text})", lambda row: negate(truth(row))
        return self.predicate()

    def predicate(self):
        name = self.rng.choice(list(COLUMNS)[2:])
        kind = COLUMNS[name]
        quoted = f'"{name}"' if " " in name else name
        form = self.rng.random()
        if form < 0.15:
            negated = self.rng.random() < 0.5
            text = f"{quoted} is {'not ' if negated else ''}null"
            return text, lambda row: (row[name] is None) != negated
        if kind == "boolean":
            if form < 0.5:
                return quoted, lambda row: row[name]
            wanted = self.rng.random() < 0.5
            return f"{quoted} = {str(wanted).lower()}", lambda row: known(
                row[name], lambda v: v == wanted
            )
        if kind == "text" and form < 0.45:
            pattern = self.rng.choice(
                ["C%", "%a%", "a_b", "a\\_b", "100\\%", "%", "_", "", "b%\\\\%", "日_"]
            )
            fold = self.rng.random() < 0.3
            word = "ilike" if fold else "like"
            negated = self.rng.random() < 0.3
            text = f"{quoted} {'not ' if negated else ''}{word} '{pattern}'"
            matches = re.compile(to_regex(pattern), re.S | (re.I if fold else 0))
            return text, lambda row: known(
                row[name], lambda v: (matches.fullmatch(v) is not None) != negated
            )
        if form < 0.65:
            values = [self.constant(kind) for _ in range(self.rng.choice([1, 2, 4]))]
            negated = self.rng.random() < 0.4
            listed = ", ".join(text for text, _ in values)
            text = f"{quoted} {'not ' if negated else ''}in ({listed})"
            wanted = [value for _, value in values]
            return text, lambda row: known(
                row[name], lambda v: (v in wanted) != negated
            )
        if form < 0.75:
            (low_text, low), (high_text, high) = (
                self.constant(kind),
                self.constant(kind),
            )
            return f"{quoted} between {low_text} and {high_text}", lambda row: known(
                row[name], lambda v: low <= v <= high
            )
        op = self.rng.choice(["=", "<>", "!=", "<", "<=", ">", ">="])
        constant_text, constant = self.constant(kind)
        compare = {
            "=": lambda v: v == constant,
            "<>": lambda v: v != constant,
            "!=": lambda v: v != constant,
            "<": lambda v: v < constant,
            "<=": lambda v: v <= constant,
            ">": lambda v: v > constant,
            ">=": lambda v: v >= constant,
        }[op]
        text = f"{quoted} {op} {constant_text}"
        if self.rng.random() < 0.2:
            flipped = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(op, op)
            text = f"{constant_text} {flipped} {quoted}"
        return text, lambda row: known(row[name], compare)

    def constant(self, kind):
        if kind == "text":
            value = self.rng.choice([t for t in TEXTS if t is not None])
            return "'" + value.replace("'", "''") + "'", value
        if kind == "integer":
            value = self.rng.choice(
                [0, -1, 60, 60.5, -0.5, 2**53, 2**53 + 1, 1e30, -1e30, 2**63 - 1,
                 -(2**63)]
            )  # fmt: skip
            return repr(value), value
        if kind == "number":
            value = self.rng.choice([0, 0.1, -0.5, 60.5, 1e300, 7])
            return repr(value), value
        value = self.rng.choice([t for t in TIMES if t is not None])
        text = value.isoformat(sep=self.rng.choice("T "))
        if kind == "time_utc":
            return f"'{text}+00:00'", value
        return self.rng.choice([f"'{text}'", f"timestamp '{text}'"]), value


def known(value, test):
    return None if value is None else test(value)


def negate(truth):
    return None if truth is None else not truth


def combine(word, truths):
    decisive = word == "or"
    if decisive in truths:
        return decisive
    return None if None in truths else not decisive


def to_regex(pattern):
    return re.sub(
        r"\\(.)|(%)|(_)|([^\\%_])",
        lambda m: (
            re.escape(m[1] or m[4] or "") if m[1] or m[4] else ".*" if m[2] else "."
        ),
        pattern,
    )


def plain_rows(frame):
    """Rows as Python values, None where a value is missing."""

    def plain(value):
        if pd.isna(value):
            return None
        if isinstance(value, pd.Timestamp):
            return value.to_pydatetime().replace(tzinfo=None)
        return value.item() if hasattr(value, "item") else value

    return [
        {name: plain(value) for name, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]


@pytest.fixture(scope="module")
def retrievers(tmp_path_factory):
    """The same rows in memory and in LanceDB."""
    pytest.importorskip("lancedb")
    vectors = np.random.default_rng(0).normal(size=(400, 8))
    metadata = make_metadata(400)
    uri = tmp_path_factory.mktemp("where") / "lance"
    made = [
        ImageRetriever(model="demo").fit(vectors, metadata=metadata),
        ImageRetriever(model="demo", index="lancedb", uri=uri).fit(
            vectors, metadata=metadata
        ),
    ]
    return (*made, plain_rows(metadata))


@pytest.mark.parametrize("block", range(10))
def test_filters_mean_the_same_everywhere(retrievers, block):
    """200 random filters, brute force by Python's own None and comparisons."""
    exact, lance, rows = retrievers
    query = np.ones(8, np.float32)
    n_found = 0
    for seed in range(20):
        text, truth = RandomFilter(1000 * block + seed).make()
        expected = {i for i, row in enumerate(rows) if truth(row) is True}
        for retriever in (exact, lance):
            found = retriever.search(query, n=len(rows), where=text)
            assert set(found["id"]) == expected, (text, type(retriever._index))
        n_found += len(expected)
    assert n_found > 0


def test_filters_mean_what_sqlite_takes_them_for(retrievers):
    """A second opinion on and, or, not, null, in and between, from a real database."""
    exact, _, rows = retrievers
    database = sqlite3.connect(":memory:")
    database.execute("create table t (id, age, dose, frontal)")
    database.executemany(
        "insert into t values (?, ?, ?, ?)",
        [(i, r["age"], r["dose"], r["frontal"]) for i, r in enumerate(rows)],
    )
    for text in (
        "age > 60 or not dose < 0",
        "not (age in (60, 61) and dose > 0.05)",
        "age not between 0 and 60",
        "frontal or age = 60 and not frontal",
        "not (age is null or dose >= 60.5)",
        "frontal is not true",
    ):
        expected = {
            row[0] for row in database.execute(f"select id from t where {text}")
        }
        found = exact.search(np.ones(8, np.float32), n=400, where=text)
        assert set(found["id"]) == expected
        assert expected


INJECTIONS = [
    "age > 1; drop table images",
    "age > 1; select 1",
    "age > 1 -- and frontal",
    "age > 1 /* */",
    "age = (select max(age) from images)",
    "age in (select 1)",
    "exists (select 1)",
    "1 = 1",
    "true",
    "modality = 'CT' or 1 = 1",
    "modality = 'CT' or 'a' = 'a'",
    "modality = modality",
    "__import__('os').system('true')",
    "@pd.io.common.os.system('true')",
    "age.__class__ = 1",
    "images.age = 1",
    "abs(age) = 1",
    "upper(modality) = 'CT'",
    "read_csv('/etc/passwd') = 1",
    "age + 1 = 2",
    "modality || 'x' = 'CTx'",
    "cast(age as varchar) = '1'",
    "age::text = '1'",
    "case when frontal then true else false end",
    "modality similar to 'C.'",
    "modality rlike 'C.'",
    "modality like 'C' escape '!'",
    "age = ?",
    "age = :age",
    "age = @age",
    "age = {{age}}",
    "age = any(array[1])",
    "[age] = 1",
    "age in unnest([1])",
    "vector = 1",
    "number = 1",
    "_rowid = 1",
    "select * from images",
    "age > 1 union select 1",
    "age > 1 limit 1",
    "age > 1 order by age",
    "age > 1 as x",
    "union",
    "age > 1\x00",
    "frontal = 1",
    "age = '1'",
    "age = true",
    "modality = 1",
    "modality = age",
    "modality < frontal",
    "frontal < true",
    "age = null",
    "age in (1, null)",
    "age in ()",
    "{ : } over",
    "age",
    "modality",
    "not age",
    "age is true",
    "taken = 'soon'",
    "taken = 20200101",
    "taken > '2020-01-01+01:00'",
    "dose > 1e999",
    "age > 0x10",
    "age < 5 < 6",
    "age > interval '1 day'",
    "modality like age",
    "age like '6%'",
    "modality like 'a\\'",
    "Age > 1",
    "",
    " ",
    ";",
    "(",
    "age >",
    "age > 1 and",
    "'",
    '"',
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_is_not_on_the_list_is_refused(retrievers, text):
    with pytest.raises(FilterError):
        retrievers[0].search(np.ones(8), where=text)


@pytest.mark.parametrize("text", [1, b"age > 1", ["age > 1"]])
def test_a_filter_is_text(retrievers, text):
    with pytest.raises(FilterError, match="text"):
        retrievers[0].search(np.ones(8), where=text)


def test_constants_cannot_leave_their_quotes(tmp_path):
    """A text that holds quotes is compared with, in memory and by LanceDB."""
    pytest.importorskip("lancedb")
    hostile = "x' or 'a' = 'a"
    quoted = hostile.replace("'", "''")
    metadata = pd.DataFrame({"modality": [hostile, "x", "CT"]})
    for index in ({}, {"index": "lancedb", "uri": tmp_path / "x"}):
        retriever = ImageRetriever(model="demo", **index)
        retriever.fit(np.eye(3), metadata=metadata)
        found = retriever.search(np.ones(3), where=f"modality = '{quoted}'")
        assert list(found["id"]) == [0]


def test_a_hostile_column_name_is_a_name(tmp_path):
    pytest.importorskip("lancedb")
    name = "a`b\"c'; drop table images; --.d"
    metadata = pd.DataFrame({name: range(20), "a.b": range(20), "Α": range(20)})
    retriever = ImageRetriever(model="demo", index="lancedb", uri=tmp_path / "x")
    retriever.fit(np.eye(20), metadata=metadata)
    quoted = '"' + name.replace('"', '""') + '"'
    where = f'{quoted} > 16 and "a.b" < 19 and "Α" <> 17'
    found = retriever.search(np.ones(20), n=20, where=where)
    assert list(found["id"]) == [18]
    assert list(found.columns)[-3:] == [name, "a.b", "Α"]


def test_long_filters_end_in_errors_not_in_crashes(retrievers):
    def search(where):
        retrievers[0].search(np.ones(8), where=where)

    nested = "(" * 5000 + "age = 1" + ")" * 5000
    with pytest.raises(FilterError, match="nested"):
        search(nested)
    with pytest.raises(FilterError, match="nested"):
        search("not " * 5000 + "frontal")
    chain = " or ".join(f"age = {i}" for i in range(6000))
    with pytest.raises(FilterError, match="column in"):
        search(chain)
    with pytest.raises(FilterError, match="characters"):
        search("age = 1 or " * 100_000 + "age = 2")


def test_a_chain_of_thousands_is_read_and_evaluated(retrievers):
    exact, lance, rows = retrievers
    text = " or ".join(f"age = {i}" for i in range(57, 1500))
    expected = {i for i, row in enumerate(rows) if row["age"] in (60, 61)}
    for retriever in (exact, lance):
        assert set(retriever.search(np.ones(8), n=400, where=text)["id"]) == expected


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('modality = "CT"', r"Text stands in single quotes: modality = 'CT'"),
        ("modalty = 'CT'", r"there is no column 'modalty'.*Did you mean 'modality'"),
        ("MODALITY = 'CT'", r"Did you mean 'modality'"),
        ("age = null", r"write: age is null"),
        ("age > 60 ande frontal", r"single quotes, a name with spaces"),
    ],
)
def test_errors_say_what_to_type(retrievers, text, match):
    with pytest.raises(FilterError, match=match):
        retrievers[0].search(np.ones(8), where=text)


def test_filters_name_ids_and_sources_too():
    retriever = ImageRetriever(model="demo").fit(
        np.eye(4), ids=list("abcd"), sources=["x/1.png", "y/2.png", None, "x/3.png"]
    )
    found = retriever.search(np.ones(4), where="source like 'x/%' and id <> 'a'")
    assert list(found["id"]) == ["d"]


def test_no_row_is_no_error():
    retriever = ImageRetriever(model="demo").fit(np.eye(4), metadata={"age": range(4)})
    found = retriever.search(np.ones(4), where="age > 99")
    assert len(found) == 0
    assert list(found.columns) == ["rank", "id", "source", "score", "age"]


def test_a_filter_needs_sqlglot(monkeypatch):
    import sys

    retriever = ImageRetriever(model="demo").fit(np.eye(4))
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[retrieval\]"):
        retriever.search(np.ones(4), where="id > 1")
    assert len(retriever.search(np.ones(4))) == 4
