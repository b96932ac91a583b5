"""Classification from prompts alone.

::

    _classifier.py       ZeroShotClassifier
    _pipeline.py         make_zero_shot_pipeline, which takes images
    _scores.py           cosines, scores and probabilities for each scoring
    _instances.py        bags: scores of instances, and their pooling
    _calibration.py      temperature and bias

    _comparison.py       compare_prompts
    _comparison_plot.py  PromptComparisonDisplay
    _prompt_search.py    PromptSearchCV
    _prompt_choices.py   cosines with single prompts, and greedy selection

    _conformal.py            ConformalZeroShot
    _conformal_split.py      patients for training, and others for calibration
    _conformal_answers.py    predictions and labels of any classifier in one shape
    _conformal_sets.py       scores, quantiles by patient, and coverage

    _heatmap.py          prompt_heatmap
    _heatmap_pipelines.py  maps of an image by a fitted pipeline
    _heatmap_parts.py    scores of cells and slices, arranged as a map
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
