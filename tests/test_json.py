"""JSON of a stranger: bounded, and checked by type."""

import pytest

from sk_medsiglip._json import MAX_DEPTH, read_json


def test_what_is_expected_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "b": [1], "c": null, "more": {}}', "utf-8")
    expected = {"a": 1, "b": [1], "c": None, "more": {}}
    schema = {"a": float, "b": list, "c": (str, type(None))}
    assert read_json(path, schema, {"d": str}) == expected
    assert read_json(path.read_bytes()) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested"),
        ('{"a": ' + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "}", "nested"),
        ("[1]", "a list, not an object"),
        ("3", "a whole number, not an object"),
        ('{"b": 1}', "'a' is missing"),
        ('{"a": true}', "'a' is true or false, not a number"),
        ('{"a": "1"}', "'a' is a text, not a number"),
        ('{"a": 1, "d": 1}', "'d' is a whole number, not a text or null"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        ("{", "Expecting"),
        (b"\xff\xfe\x00", "decode"),
    ],
)
def test_other_shapes_are_value_errors(text, message):
    with pytest.raises(ValueError, match=message):
        read_json(text, {"a": float}, {"d": (str, type(None))})
