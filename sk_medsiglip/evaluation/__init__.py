"""Figures with intervals: what scores are worth, and what to do with them."""

from sk_medsiglip.evaluation._calibration_error import expected_calibration_error
from sk_medsiglip.evaluation._operating_point import (
    OperatingPoint,
    choose_operating_point,
)

__all__ = ["OperatingPoint", "choose_operating_point", "expected_calibration_error"]
