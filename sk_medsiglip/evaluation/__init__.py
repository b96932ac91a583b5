"""Figures with intervals: what scores are worth, and what to do with them."""

from sk_medsiglip.evaluation._calibration_error import expected_calibration_error
from sk_medsiglip.evaluation._curve_band_plot import (
    PrecisionRecallBandDisplay,
    RocBandDisplay,
)
from sk_medsiglip.evaluation._delong import delong_test
from sk_medsiglip.evaluation._embedding_map_plot import EmbeddingMapDisplay
from sk_medsiglip.evaluation._evaluate import evaluate
from sk_medsiglip.evaluation._label_efficiency import label_efficiency
from sk_medsiglip.evaluation._label_efficiency_plot import LabelEfficiencyDisplay
from sk_medsiglip.evaluation._mistakes_plot import MistakesDisplay
from sk_medsiglip.evaluation._operating_point import (
    OperatingPoint,
    choose_operating_point,
)
from sk_medsiglip.evaluation._published import known_training_data, published_results
from sk_medsiglip.evaluation._reliability_plot import ReliabilityDisplay
from sk_medsiglip.evaluation._report import write_report
from sk_medsiglip.evaluation._subgroup_plot import SubgroupForestDisplay

__all__ = [
    "EmbeddingMapDisplay",
    "LabelEfficiencyDisplay",
    "MistakesDisplay",
    "OperatingPoint",
    "PrecisionRecallBandDisplay",
    "ReliabilityDisplay",
    "RocBandDisplay",
    "SubgroupForestDisplay",
    "choose_operating_point",
    "delong_test",
    "evaluate",
    "expected_calibration_error",
    "known_training_data",
    "label_efficiency",
    "published_results",
    "write_report",
]
