"""Classification from prompts alone."""

from sk_medsiglip.zero_shot._classifier import ZeroShotClassifier
from sk_medsiglip.zero_shot._comparison import compare_prompts
from sk_medsiglip.zero_shot._comparison_plot import PromptComparisonDisplay
from sk_medsiglip.zero_shot._conformal import ConformalZeroShot
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
