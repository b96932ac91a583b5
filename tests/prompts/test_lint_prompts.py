"""What lint_prompts finds, and what it leaves in peace."""

import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sk_medsiglip.cli
from sk_medsiglip import EmbeddingCache, ZeroShotClassifier
from sk_medsiglip.encoder import clear_encoders, load_encoder
from sk_medsiglip.exceptions import ModelAccessError, PromptError, PromptWarning
from sk_medsiglip.prompts import lint_prompts, load_prompt_set

COLUMNS = [
    "label", "side", "text", "n_tokens", "truncated", "nearest", "cosine", "problem",
]  # fmt: skip
CLASSES = {
    "wet": ["pleural effusion", "fluid in the pleural space"],
    "big": "big heart",
}


def lint(prompts, **params):
    return lint_prompts(prompts, **{"model": "demo", "device": "cpu"} | params)


def problems(prompts, **params):
    report = lint(prompts, **params)
    return dict(zip(report["text"], report["problem"], strict=True))


def test_report_has_a_row_for_every_text_in_the_order_of_the_classes():
    report = lint(CLASSES)
    assert report.columns.tolist() == COLUMNS
    assert report["label"].tolist() == ["big", "wet", "wet"]
    assert report["side"].tolist() == ["", "", ""]
    assert report["nearest"].tolist() == ["wet", "big", "big"]
    assert report["problem"].tolist() == ["", "", ""]


def test_sides_of_findings_are_absent_before_present():
    report = lint({"wet": {"positive": "pleural effusion", "negative": "dry pleura"}})
    assert report["side"].tolist() == ["negative", "positive"]
    assert report["nearest"].tolist() == ["wet (positive)", "wet (negative)"]


def test_cosines_are_those_of_the_classifier():
    report = lint(CLASSES)
    X = np.eye(192, dtype=np.float32)[:2]
    vectors = ZeroShotClassifier(CLASSES, model="demo").fit(X).class_embeddings_
    np.testing.assert_allclose(report["cosine"], vectors[0] @ vectors[1], rtol=1e-5)


def test_tokens_are_counted_as_the_encoder_counts_them():
    report = lint(CLASSES)
    counts = load_encoder("demo", device="cpu").count_tokens(report["text"].tolist())
    assert report["n_tokens"].tolist() == [n_tokens for n_tokens, _ in counts]


def test_long_text_is_named_without_the_warning_of_the_embedder(checkpoint):
    long = "pleural effusion and " * 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = lint({"a": [long], "b": ["normal"]}, model=checkpoint, similarity=1)
    assert report["truncated"].tolist() == [True, False]
    n_tokens = report["n_tokens"][0]
    assert f"{n_tokens} tokens, the model reads 64" in report["problem"][0]


def test_texts_that_differ_after_the_end_are_the_same_to_the_model(checkpoint):
    long = "pleural effusion and " * 40
    found = problems(
        {"a": [long + "x", long + "y"], "b": "normal"}, model=checkpoint, similarity=1
    )
    assert "the same to the model as" in found[long + "y"]


def test_case_spaces_and_punctuation_make_no_new_prompt():
    found = problems({"a": ["big heart", "Big  heart!"], "b": "pleural effusion"})
    assert found["big heart"] == ""
    assert found["Big  heart!"].startswith("the same to the model as 'big heart'")


def test_text_of_two_classes_is_found_in_both():
    prompts = {"a": ["big heart", "effusion"], "b": ["Effusion.", "small effusion"]}
    found = problems(prompts)
    assert "also a prompt of b" in found["effusion"]
    assert "also a prompt of a" in found["Effusion."]


def test_absent_sides_may_share_a_text_and_no_other_sides_may():
    pairs = {
        "wet": {"positive": "pleural effusion", "negative": "no finding"},
        "big": {"positive": "cardiomegaly", "negative": "no finding"},
    }
    assert set(lint(pairs)["problem"]) == {""}
    pairs["big"]["positive"] = ["cardiomegaly", "pleural effusion", "no finding"]
    found = lint(pairs)["problem"].tolist()
    assert "also a prompt of big (positive)" in found[0]
    assert "also a prompt of big (positive)" in found[1]
    assert "also a prompt of big (positive)" in found[2]
    assert "also a prompt of wet (positive)" in found[4]
    assert "also a prompt of wet (negative)" in found[5]
    assert "big (negative)" in found[5]


def test_nearly_equal_classes_are_reported_and_warned_about():
    same = {"one": "effusion", "many": "effusions", "big": "big heart"}
    with pytest.warns(PromptWarning, match=r"0\.99"):
        report = lint(same)
    assert report.loc[report["label"] == "one", "nearest"].item() == "many"
    assert (
        "class vector nearly equal to that of many (cosine 0.99" in report["problem"][2]
    )
    assert report["problem"][0] == ""
    assert "class vector" not in "".join(lint(same, similarity=0.999)["problem"])


def test_denial_that_the_model_does_not_read_is_found():
    # Known of the demonstration: it reads this one as fluid.
    file = Path(sk_medsiglip.cli.__file__).with_name("phantom_prompts.json")
    report = lint(load_prompt_set(file))
    flagged = report[report["problem"] != ""]
    assert flagged["text"].tolist() == ["no fluid has collected in the pleural space"]
    assert "nearer to effusion (positive)" in flagged["problem"].item()


def test_unfilled_braces_and_empty_denials_are_found():
    found = problems({"a": {"positive": "image of {finding}", "negative": "No."}})
    assert "holds a brace" in found["image of {finding}"]
    assert "only a negation" in found["No."]


def test_templates_and_weights_count():
    report = lint(
        {"a": {"big heart": 2, "fluid": 0}, "b": "air"}, templates="a {} here"
    )
    assert report["text"].tolist() == ["a big heart here", "a fluid here", "a air here"]
    heavy = report["cosine"][0]
    alone = lint({"a": "a big heart here", "b": "a air here"})["cosine"][0]
    assert heavy == pytest.approx(alone, abs=1e-5)


def test_integer_grades_stay_integers():
    report = lint(load_prompt_set("retinopathy_grades_published"))
    assert report["label"].tolist() == [0, 1, 2, 3, 4]
    assert set(report["nearest"]) <= set("01234")


def test_nothing_is_printed(capsys):
    lint(CLASSES)
    assert capsys.readouterr().out == ""


def test_stored_vectors_need_no_weights(checkpoint, tmp_path, monkeypatch):
    with closing(EmbeddingCache(tmp_path / "store")) as cache:
        first = lint(CLASSES, model=checkpoint, cache=cache, similarity=1)
        clear_encoders()
        monkeypatch.setattr(
            "sk_medsiglip.encoder._loading.TorchTowers",
            lambda *_: pytest.fail("the weights were loaded"),
        )
        again = lint(CLASSES, model=checkpoint, cache=cache, similarity=1)
    assert again.equals(first)


def test_what_a_classifier_refuses_is_refused_here():
    for bad in ({}, {"a": "x"}, {"a": "", "b": "y"}, ["x"], {"a": {"positive": "x"}}):
        with pytest.raises(PromptError) as caught:
            lint(bad)
        with pytest.raises(PromptError) as expected:
            ZeroShotClassifier(bad, model="demo").fit(np.eye(192)[:2])
        assert str(caught.value) == str(expected.value)


def test_bad_arguments_are_refused():
    for similarity in (0, 1.5, -1):
        with pytest.raises(ValueError, match="cosine"):
            lint(CLASSES, similarity=similarity)
    with pytest.raises(ModelAccessError):
        lint(CLASSES, model="./no/such/folder")


# ----------------------------------------------------------------------- many, and long


def test_blocks_change_nothing(monkeypatch):
    prompts = {
        f"class {i}": [f"finding {i}", f"finding {i // 2} left"] for i in range(9)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptWarning)
        whole = lint_prompts(prompts, model="demo")
        monkeypatch.setattr("sk_medsiglip.prompts._lint._ROWS_AT_ONCE", 2)
        in_blocks = lint_prompts(prompts, model="demo")
    pd.testing.assert_frame_equal(in_blocks, whole)


def test_a_long_text_is_looked_at_as_far_as_it_is_read():
    text = "finding of the lung " * 40_000
    report = lint_prompts({"a": [text, text.upper()], "b": "normal"}, model="demo")
    row = report.iloc[0]
    assert row["truncated"]
    assert len(row["text"]) == 10_000
    assert row["n_tokens"] < 10_000
    assert "the end is ignored" in row["problem"]
    # Another text is quoted by its beginning.
    assert "the same to the model as 'finding of the lung" in report["problem"][1]
    assert len(report["problem"][1]) < 300


def test_one_text_in_many_classes_is_told_shortly():
    prompts = {f"c{i}": ["the same"] for i in range(200)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptWarning)
        report = lint_prompts(prompts, model="demo")
    assert "also a prompt of c1; also a prompt of c10" in report["problem"][0]
    assert report["problem"].str.len().max() < 300
