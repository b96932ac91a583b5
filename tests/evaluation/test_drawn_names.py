"""Names of users in every picture: drawn as they are written, and never left out."""

import io
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sk_medsiglip
from sk_medsiglip import _drawn_names
from sk_medsiglip.evaluation import (
    DecisionCurveDisplay,
    EmbeddingMapDisplay,
    LabelEfficiencyDisplay,
    MistakesDisplay,
    PrecisionRecallBandDisplay,
    ReliabilityDisplay,
    RocBandDisplay,
    SubgroupForestDisplay,
    evaluate,
)
from sk_medsiglip.fine_tuning import MedSigLIPFineTuner
from sk_medsiglip.retrieval import RetrievalDisplay
from sk_medsiglip.zero_shot import HeatmapDisplay, PromptComparisonDisplay

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")

NAMES = [
    "pays $5 or $6",
    r"$\frac{1}$",
    r"a \$ b $ c",
    r"100 % \alpha^_{2}",
    "_hidden",
    "",
    "two\nlines\tand a tab",
    "bell\x07null\x00end",
    "x" * 300,
    "Größe, мягкая, ψ",
    "[red]{x}'\"<b>&amp;|`",
]
# Every display draws these in the default tier: each breaks a picture in its own way
# where a display forgets to write a name as text. All go through one function, which
# is tested on the others too.
HARDEST = NAMES[:1] + NAMES[3:6] + NAMES[7:8]
RNG = np.random.default_rng(0)
Y = np.tile([0, 1], 30)
SCORE = np.clip(0.4 * Y + 0.6 * RNG.random(60), 0, 1)
PICTURE = np.zeros((20, 20, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def agg():
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


def findings(name):
    return pd.DataFrame({name: Y.astype(float), "other": 1.0 - Y})


def band(kind, **few):
    def draw(name):
        both = np.column_stack([SCORE, 1 - SCORE])
        return kind.from_predictions(findings(name), both, label=name, name=name, **few)

    return draw


def forest(name, gaps=False):
    table = evaluate(
        {name: np.column_stack([SCORE, 1 - SCORE])}, Y, findings(name),
        subgroups={name: np.where(np.arange(60) < 30, name, "M")}, metrics="roc_auc",
        n_bootstrap=5,
    )  # fmt: skip
    return SubgroupForestDisplay(table).plot(label=name, gaps=gaps)


def several_in_a_forest(name):
    scores = {name: SCORE, "second": 1 - SCORE}
    table = evaluate(
        scores, Y, Y, subgroups={"sex": Y[RNG.permutation(60)]}, n_bootstrap=5
    )
    return SubgroupForestDisplay(table).plot(metric="roc_auc")


def efficiency(name):
    rows = [(name, name, size, 0, 0.5) for size in (0, 8)]
    rows += [("free", name, 0, 0, 0.5)]
    columns = ["estimator", "label", "size", "repeat", "score"]
    return LabelEfficiencyDisplay(
        pd.DataFrame(rows, columns=columns), scoring=name or "roc_auc"
    ).plot(label=name)


def comparison(name):
    row = {"auc": 0.7, "auc_low": 0.6, "auc_high": 0.8, "gain": 0.1, "gain_high": 0.2}
    rows = [
        {"label": name, "side": side, "text": text, **row}
        for side, text in [("", ""), ("positive", name or "a"), ("negative", "b")]
    ]
    return PromptComparisonDisplay(pd.DataFrame(rows)).plot(labels=[name])


def search(name):
    hits = pd.DataFrame(
        {"rank": [1, 2], "score": 0.5, "id": [name, "b"], name: [name, "b"]}
    )
    return RetrievalDisplay(hits, [PICTURE, None], query=name, label=name).plot()


def mistakes(name):
    table = pd.DataFrame(
        {"row": [0], "true": [name], "predicted": [name], "probability": [0.1]}
    )
    return MistakesDisplay([PICTURE], table, title=name).plot()


def embedding_map(name):
    values = np.array([name, "b", "c"] * 4, dtype=object)
    return EmbeddingMapDisplay.from_embeddings(RNG.random((12, 4)), values, title=name)


def heatmap(name):
    return HeatmapDisplay(PICTURE, RNG.random((4, 4)), title=name).plot()


def history(name):
    table = pd.DataFrame({"step": [1, 2], "epoch": [0.5, 1.0], "loss": [1.0, 0.5]})
    tuner = MedSigLIPFineTuner()
    tuner.history_, tuner.best_step_ = table, 2
    return tuner.plot_history()


DISPLAYS = {
    "roc": band(RocBandDisplay, n_bootstrap=5),
    "precision-recall": band(PrecisionRecallBandDisplay, n_bootstrap=5),
    "reliability": band(ReliabilityDisplay),
    "decision curve": band(DecisionCurveDisplay),
    "forest": forest,
    "gaps": lambda name: forest(name, gaps=True),
    "forest of several": several_in_a_forest,
    "label efficiency": efficiency,
    "prompt comparison": comparison,
    "retrieval": search,
    "mistakes": mistakes,
    "map": embedding_map,
    "heatmap": heatmap,
    "history": history,
}


def drawn_words(figure):
    """Return every text of a figure as a reader finds it in the picture."""
    written = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(written, format="svg")
    return ["".join(one.itertext()) for one in ET.fromstring(written.getvalue()).iter()]


@pytest.mark.parametrize(
    "name",
    [
        name if name in HARDEST else pytest.param(name, marks=pytest.mark.slow)
        for name in NAMES
    ],
)
@pytest.mark.parametrize("kind", list(DISPLAYS))
def test_every_display_draws_every_name(kind, name):
    display = DISPLAYS[kind](name)
    figure = getattr(display, "figure_", None) or display.figure
    words = " ".join(drawn_words(figure))
    shown = " ".join(name.split())
    if kind != "history" and shown.isprintable() and 0 < len(shown) < 16:
        assert shown in words.replace("\u200b", "")


@pytest.mark.parametrize("name", NAMES)
def test_no_legend_leaves_a_name_out(name):
    for kind in (RocBandDisplay, ReliabilityDisplay):
        legend = band(kind)(name).ax_.get_legend()
        assert len(legend.get_texts()) == 1
    legend = band(DecisionCurveDisplay)(name).ax_.get_legend()
    assert len(legend.get_texts()) == 3
    assert len(several_in_a_forest(name).ax_.get_legend().get_texts()) == 2
    assert len(embedding_map(name).ax_.get_legend().get_texts()) == 3
    assert len(efficiency(name).ax_.get_legend().get_texts()) == 2


def test_all_files_that_draw_are_walked():
    files = {one.name for one in Path(sk_medsiglip.__file__).parent.rglob("*_plot.py")}
    assert files == {
        *("_curve_band_plot.py", "_reliability_plot.py", "_subgroup_plot.py"),
        *("_label_efficiency_plot.py", "_embedding_map_plot.py", "_mistakes_plot.py"),
        "_net_benefit_plot.py",
        *("_comparison_plot.py", "_heatmap_plot.py", "_hits_plot.py", "_plot.py"),
        # The report draws with the displays; its names are in test_report.py.
        *("_history_plot.py", "_report_plot.py"),
    }


def test_a_name_is_shortened_in_its_middle():
    assert _drawn_names.drawn("abcdefghij", 7) == "abcd…ij"
    assert _drawn_names.drawn("abcdefg", 7) == "abcdefg"
    assert _drawn_names.drawn("$" * 10, 7) == r"\$\$\$\$…\$\$"
    assert _drawn_names.drawn("a \n b") == "a b"
    assert _drawn_names.drawn(" \n") == "(no name)"
    assert _drawn_names.drawn(3) == "3"
    assert _drawn_names.drawn("half \ud800 of a letter") == "half of a letter"


def test_a_title_has_four_lines_at_most():
    lines = _drawn_names.drawn_lines("pays $5 or $6 " * 50, 15).splitlines()
    assert lines[:3] == [r"pays \$5 or \$6"] * 3
    assert len(lines) == 4
    assert lines[-1].endswith("…")
