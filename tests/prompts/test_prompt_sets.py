"""Sets that ship are sound; sets of users are checked before they are used."""

import copy
import json
import pickle
import string

import numpy as np
import pytest
import yaml
from sklearn.base import clone

from sk_medsiglip import ZeroShotClassifier
from sk_medsiglip.exceptions import PromptError
from sk_medsiglip.prompts import (
    PromptSet,
    check_prompts,
    find_prompt_set,
    list_prompt_sets,
    load_prompt_set,
)

NAMES = list_prompt_sets()["name"].tolist()
LONGEST = 64

HEADER = """\
title: A test
version: 3
modality: chest X-ray
source: ours
notes: not measured
"""
CLASSES = HEADER + "prompts:\n  wet: [pleural effusion, fluid]\n  dry: dry pleura\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write


def plain(text):
    """Fold what the tokenizer folds: case, spaces, punctuation."""
    bare = text.casefold().translate(str.maketrans("", "", string.punctuation))
    return " ".join(bare.split())


# The sets that ship


@pytest.mark.parametrize("name", NAMES)
def test_set_is_valid_and_says_what_it_is(name):
    shipped = load_prompt_set(name)
    check_prompts(shipped)
    assert shipped.name == name
    assert shipped.version >= 1
    written = yaml.safe_load(find_prompt_set(name).read_text("utf-8"))
    for said in ("title", "version", "modality", "source", "notes"):
        assert str(written[said]).strip()
    assert "No clinical claim." in shipped.notes
    assert "measured" in shipped.notes
    assert shipped.templates == ()


@pytest.mark.parametrize("name", NAMES)
def test_no_text_stands_for_two_things(name):
    question = check_prompts(load_prompt_set(name))
    groups = [{plain(text) for text in texts} for texts in question.texts]
    assert [len(group) for group in groups] == [len(t) for t in question.texts]
    if not question.is_pairs:
        assert len(set().union(*groups)) == sum(map(len, groups))
        return
    absent, present = groups[::2], groups[1::2]
    # Several findings may be denied by one text, such as "normal study".
    assert len(set().union(*present)) == sum(map(len, present))
    assert not set().union(*present) & set().union(*absent)


@pytest.mark.parametrize("name", NAMES)
def test_texts_fit_the_model(name, tokenizer):
    texts = [
        text for group in check_prompts(load_prompt_set(name)).texts for text in group
    ]
    lengths = [len(i) for i in tokenizer([t.lower() for t in texts])["input_ids"]]
    assert max(lengths) <= LONGEST


@pytest.fixture(scope="module")
def tokenizer(shared_data):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared_data / "siglip_tokenizer")


@pytest.mark.parametrize("name", NAMES)
def test_classifier_takes_the_set_whole(name, checkpoint):
    shipped = load_prompt_set(name)
    X = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    clf = ZeroShotClassifier(shipped, model=checkpoint).fit(X)
    unpacked = ZeroShotClassifier({**shipped}, model=checkpoint).fit(X)
    np.testing.assert_array_equal(clf.class_embeddings_, unpacked.class_embeddings_)
    assert clf.predict_proba(X).shape == (3, len(shipped))
    copied = clone(clf)
    assert copied.prompts == shipped
    assert copied.prompts is not shipped
    assert pickle.loads(pickle.dumps(clf)).prompts == shipped


@pytest.mark.parametrize("name", ["chest_xray_13_published", "retinopathy_grades"])
def test_demonstration_takes_sets_and_is_printed_briefly(name):
    shipped = load_prompt_set(name)
    clf = ZeroShotClassifier(shipped, model="demo").fit(np.eye(192, dtype=np.float32))
    assert clf.predict_proba(np.eye(192)).shape == (192, len(shipped))
    assert len(repr(clf)) < 200


@pytest.mark.parametrize("name", NAMES)
def test_grades_sort_by_severity(name):
    shipped = load_prompt_set(name)
    if shipped.ordinal:
        assert check_prompts(shipped).labels.tolist() == list(shipped)
        assert shipped.kind == "grades"


def test_specific_chest_sets_have_several_texts_a_side():
    for name in ("chest_xray_13", "chest_xray_nih14"):
        for pair in load_prompt_set(name).values():
            assert min(len(pair["positive"]), len(pair["negative"])) >= 3


def test_both_chest_sets_have_the_same_findings_in_the_same_order():
    published = load_prompt_set("chest_xray_13_published")
    assert list(published) == list(load_prompt_set("chest_xray_13"))
    assert len(published) == 13


def test_list_has_a_row_for_every_set():
    table = list_prompt_sets().set_index("name")
    assert table.loc["chest_xray_13", "kind"] == "findings"
    assert table.loc["skin_conditions", "kind"] == "classes"
    assert table.loc["breast_density", "kind"] == "grades"
    assert table.loc["retinopathy_grades_published", "n_prompts"] == 5
    assert table.loc["chest_xray_nih14", "n_classes"] == 14


# PromptSet


def test_set_is_a_mapping_that_copies_and_pickles():
    shipped = load_prompt_set("dermoscopy_lesions")
    assert len(shipped) == len(list(shipped)) == 8
    assert dict(shipped) == shipped
    assert pickle.loads(pickle.dumps(shipped)) == shipped
    assert copy.deepcopy(shipped) == shipped
    assert shipped.select(["melanoma", "dermatofibroma"]) != shipped
    with pytest.raises(AttributeError):
        shipped.version = 2


def test_templates_are_filled_in_by_the_set_itself():
    prompts = {"a": ("x", "y"), "b": {"z": 2.0}, "c": "w"}
    made = PromptSet("mine", prompts, templates=("an {}", "the {}"))
    assert made["a"] == ["an x", "an y", "the x", "the y"]
    assert made["b"] == {"an z": 2.0, "the z": 2.0}
    assert made["c"] == ["an w", "the w"]
    assert made.n_prompts == 8
    whole = check_prompts(made)
    apart = check_prompts(made.prompts, made.templates or None)
    assert whole.texts == apart.texts


def test_select_keeps_the_order_asked_for():
    chosen = load_prompt_set("chest_xray_13").select(["edema", "atelectasis"])
    assert check_prompts(chosen).labels.tolist() == ["edema", "atelectasis"]
    assert chosen.version == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["edemas"], "did you mean 'edema'"),
        (["unheard of"], "It has: 'enlarged cardiomediastinum'"),
        ("edema", r"needs a list of names: \['edema'\]"),
        ([], "at least one"),
        (["edema", "edema"], "without repeats"),
    ],
)
def test_select_refuses(names, message):
    with pytest.raises(PromptError, match=message):
        load_prompt_set("chest_xray_13").select(names)


# Files of users


def test_file_of_a_user_is_a_set(write):
    mine = load_prompt_set(write(CLASSES))
    assert repr(mine) == "PromptSet('mine', version=3, 2 classes, 3 prompts)"
    assert mine == {"wet": ["pleural effusion", "fluid"], "dry": ["dry pleura"]}
    assert load_prompt_set(str(write(CLASSES))) == mine


def test_file_may_have_templates_weights_and_a_byte_order_mark(write):
    text = HEADER + 'templates: "X-ray of {}"\nprompts:\n  a: {x: 2, y: 1}\n  b: [z]\n'
    mine = load_prompt_set(write("\ufeff" + text))
    assert mine["a"] == {"X-ray of x": 2, "X-ray of y": 1}
    assert check_prompts(mine).weights == ((2.0, 1.0), (1.0,))


def test_grades_may_be_whole_numbers(write):
    text = HEADER + "ordinal: true\nprompts:\n  0: [none]\n  1: [some]\n"
    assert check_prompts(load_prompt_set(write(text))).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "holds a list"),
        ("title: [", "not valid YAML"),
        ("title: 2025-99-99\n", "not valid YAML"),
        ("title: !!python/object:os.system {}\n", "not valid YAML"),
        ("title: A\n", "title but no prompts"),
        ("notes: [a note]\nwet: [x]\n", "notes but no prompts"),
        (
            CLASSES.replace("notes:", "note:"),
            "'note' .*did you mean 'notes'",
        ),
        (
            CLASSES.replace("version: 3", "version: '3'"),
            "version is '3'.* whole number",
        ),
        (CLASSES.replace("version: 3", "version: yes"), "version is True"),
        (CLASSES.replace("source: ours", "source: "), "source is None.* a text"),
        (CLASSES.replace("source: ours", "source: ' '"), "source is empty"),
        (CLASSES + "ordinal: 1\n", "ordinal is 1"),
        (CLASSES + "templates: {a: b}\n", "a list of texts"),
        (CLASSES + "templates: [no slot]\n", "exactly one {}"),
        (CLASSES + "  dry: again\n", "'dry' of line 8 is repeated in line 9"),
        ("wet: [a]\ndry: [b]\nwet: [c]\n", "'wet' of line 1 is repeated in line 3"),
        ("no: [a]\nyes: [b]\n", "class False as bool.*in quotes"),
        ("1.5: [a]\n2.5: [b]\n", "class 1.5 as float"),
        ("wet: 2025-99-99\ndry: a\n", "not valid YAML"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: &a [*a]\nb: b\n", "aliases"),
        ("a: " + "1" * 5000 + "\nb: b\n", "line 1 holds a number of 5,000"),
        ("b: b\na: 0x" + "f" * 5000, "line 2 holds a number of 5,002"),
        ("a: {x: 1" + ":59" * 3000 + "}\nb: b\n", "holds a number of 9,001"),
        ("? 0b" + "1" * 20_000 + "\n: [a]\nb: b\n", "holds a number of 20,002"),
        (HEADER + "prompts: [a, b]\n", "prompts is .* a mapping"),
        (HEADER + "prompts:\n  no: a\n  b: b\n", "class False as bool.*in quotes"),
        (HEADER + "prompts:\n  1: a\n  2: b\n", "class 1 as int.*ordinal: true"),
        (HEADER + "prompts:\n  a: no\n  b: b\n", r"reads False \(bool\)"),
        (HEADER + "prompts:\n  a: [x, 1.5]\n  b: b\n", r"reads 1.5 \(float\)"),
        (HEADER + "prompts:\n  a: x\n", "prompts has one class"),
        (HEADER + "prompts:\n  a: {positive: x}\n", "keys.*positive"),
        (HEADER + "prompts:\n  a: {positive: x, negative: no}\n", "'a', negative"),
        (HEADER + "prompts:\n  a: []\n  b: b\n", "non-empty list"),
        (
            HEADER + "ordinal: true\nprompts:\n  1: a\n  0: b\n",
            "increasing order",
        ),
        (HEADER + "ordinal: true\nprompts:\n  0: a\n  b: b\n", "different types"),
    ],
)
def test_file_is_refused(write, text, message):
    path = write(text)
    with pytest.raises(PromptError, match=message) as caught:
        load_prompt_set(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("where", ["title: *f\n", "templates: *f\n", "<<: *f\n"])
def test_aliases_of_aliases_are_not_written_out(write, where):
    """Ten lines of which nine levels of nine make 387 million texts."""
    lines = ["f0: &f0 {k: lol}"]
    for i in range(1, 10):
        nine = ", ".join([f"*f{i - 1}"] * 9)
        key = "<<" if "<<" in where else "k"
        lines.append(f"f{i}: &f{i} {{{key}: [{nine}]}}")
    text = "\n".join(lines).replace("&f9", "&f")
    with pytest.raises(PromptError, match="aliases") as caught:
        load_prompt_set(write(f"{text}\n{where}prompts: {{a: b}}\n"))
    assert len(str(caught.value)) < 1000


def test_a_long_value_is_not_printed_whole(write):
    long = ", ".join(["lol"] * 10_000)
    for text in (f"title: [{long}]\nprompts: {{a: b}}\n", f"a: [[{long}]]\nb: c\n"):
        with pytest.raises(PromptError) as caught:
            load_prompt_set(write(text))
        assert len(str(caught.value)) < 1000


def test_file_may_hold_nothing_but_prompts(write):
    bare = load_prompt_set(write("wet: [pleural effusion, fluid]\ndry: dry pleura\n"))
    assert bare == {"wet": ["pleural effusion", "fluid"], "dry": ["dry pleura"]}
    assert repr(bare) == "PromptSet('mine', version=1, 2 classes, 3 prompts)"
    numbers = load_prompt_set(write("1: an effusion\n0: no effusion\n"))
    assert list(numbers) == [1, 0]
    assert numbers.kind == "classes"
    some = load_prompt_set(write("title: Wet\nordinal: true\nprompts: {0: a, 1: b}\n"))
    assert (some.title, some.version, some.notes, some.kind) == ("Wet", 1, "", "grades")


def test_json_is_read_as_yaml_is(write):
    pairs = {"wet": {"positive": {"fluid": 2.0, "water": 1}, "negative": ["dry"]}}
    path = write("\ufeff" + json.dumps(pairs, indent="\t"), "mine.json")
    for given in (path, str(path)):
        mine = load_prompt_set(given)
        assert mine == pairs
        assert (mine.name, mine.kind) == ("mine", "findings")
    full = json.dumps({"title": "A", "version": 2, "prompts": {"a": "x", "b": "y"}})
    assert load_prompt_set(write(full, "full.json")).version == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "holds a list"),
        ('{"a": ["x"], "b": ["y"], "a": ["z"]}', "the key 'a' is repeated"),
        ('{"a": {"positive": "x", "positive": "y"}}', "'positive' is repeated"),
        ('{"a": false, "b": ["y"]}', r"'a': .* False \(bool\)"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "not valid JSON"),
        ('{"a": {"x": 1' + "0" * 400 + '}, "b": "y"}', "weight"),
    ],
)
def test_json_is_refused(write, text, message):
    path = write(text, "mine.json")
    with pytest.raises(PromptError, match=message) as caught:
        load_prompt_set(path)
    assert str(path) in str(caught.value)


def test_alias_in_a_file_is_no_repeated_key(write):
    text = HEADER + "prompts:\n  a: &x {positive: p, negative: q}\n  b: *x\n"
    assert load_prompt_set(write(text)).kind == "findings"


def test_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(PromptError, match=r"none\.yaml"):
        load_prompt_set(tmp_path / "none.yaml")
    for suffix in ("yaml", "json"):
        latin = tmp_path / f"latin.{suffix}"
        latin.write_bytes("title: Ödem".encode("latin-1"))
        with pytest.raises(PromptError, match="not UTF-8"):
            load_prompt_set(latin)


def test_unknown_name_gets_a_suggestion_and_the_list():
    with pytest.raises(PromptError, match="mean 'chest_xray_13'") as caught:
        load_prompt_set("chest_xray13")
    assert "skin_conditions" in str(caught.value)
