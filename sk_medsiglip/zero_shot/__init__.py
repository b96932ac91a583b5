"""Classification from prompts alone."""

from sk_medsiglip.zero_shot._classifier import ZeroShotClassifier
from sk_medsiglip.zero_shot._pipeline import make_zero_shot_pipeline

__all__ = ["ZeroShotClassifier", "make_zero_shot_pipeline"]
