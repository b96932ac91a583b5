"""Figures with intervals: what scores are worth, and what to do with them."""

from sk_medsiglip.evaluation._calibration_error import expected_calibration_error
from sk_medsiglip.evaluation._delong import delong_test
from sk_medsiglip.evaluation._evaluate import evaluate
from sk_medsiglip.evaluation._operating_point import (
    OperatingPoint,
    choose_operating_point,
)
from sk_medsiglip.evaluation._published import known_training_data, published_results

__all__ = [
    "OperatingPoint",
    "choose_operating_point",
    "delong_test",
    "evaluate",
    "expected_calibration_error",
    "known_training_data",
    "published_results",
]
