"""Classification from prompts alone.

::

    _classifier.py       ZeroShotClassifier
    _pipeline.py         make_zero_shot_pipeline: with images before it
    _scores.py           from cosines to scores to probabilities, a formula a scoring
    _instances.py        bags: scores of instances, and how they are pooled
    _calibration.py      temperature and bias

    _comparison.py       compare_prompts: the worth of each prompt
    _comparison_plot.py  PromptComparisonDisplay
    _prompt_search.py    PromptSearchCV
    _prompt_choices.py   cosines with single prompts, and greedy choice among them

    _conformal.py            ConformalZeroShot: sets that hold the truth
    _conformal_split.py      patients that teach, and others that calibrate
    _conformal_answers.py    answers and labels of any classifier in one shape
    _conformal_sets.py       scores, quantiles by patient, and coverage

    _heatmap.py          prompt_heatmap: which parts of an image are like a prompt
    _heatmap_pipelines.py  the map that a fitted pipeline gives an image
    _heatmap_parts.py    scores of cells and slices, laid out as a map
    _heatmap_plot.py     HeatmapDisplay
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.zero_shot._classifier import ZeroShotClassifier
from sk_medsiglip.zero_shot._comparison import compare_prompts
from sk_medsiglip.zero_shot._comparison_plot import PromptComparisonDisplay
from sk_medsiglip.zero_shot._conformal import ConformalZeroShot
from sk_medsiglip.zero_shot._conformal_answers import Answers as Answers
from sk_medsiglip.zero_shot._conformal_answers import find_answers as find_answers
from sk_medsiglip.zero_shot._conformal_answers import (
    list_probabilities as list_probabilities,
)
from sk_medsiglip.zero_shot._heatmap import prompt_heatmap
from sk_medsiglip.zero_shot._heatmap_plot import HeatmapDisplay
from sk_medsiglip.zero_shot._pipeline import make_zero_shot_pipeline
from sk_medsiglip.zero_shot._prompt_search import PromptSearchCV

__all__ = [
    "ConformalZeroShot",
    "HeatmapDisplay",
    "PromptComparisonDisplay",
    "PromptSearchCV",
    "ZeroShotClassifier",
    "compare_prompts",
    "make_zero_shot_pipeline",
    "prompt_heatmap",
]

name_by_room(globals())
