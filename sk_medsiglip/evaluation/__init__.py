"""Metrics with intervals, thresholds, displays, and the report.

::

    _evaluate.py             evaluate
    _judged.py               rows of its table: figures, differences, gaps
    _answers.py              an estimator's answers, one question per label
    _figures.py              metrics of a question, with their intervals
    _permutations.py         p-values of gaps between subgroups
    _known_labels.py         labels and their scores, checked
    _leaks.py                patients and images shared with other data

    _calibration.py          expected_calibration_error; calibration slope, intercept
    _delong.py               delong_test
    _net_benefit.py          net_benefit
    _operating_point.py      choose_operating_point
    _operating_point_classifier.py    OperatingPointClassifier
    _published.py            published_results, known_training_data

    _label_efficiency.py     label_efficiency
    _label_draws.py          its draws of labelled images, and their scores

    _curve_band_plot.py      RocBandDisplay, PrecisionRecallBandDisplay
    _net_benefit_plot.py     DecisionCurveDisplay
    _reliability_plot.py     ReliabilityDisplay
    _subgroup_plot.py        SubgroupForestDisplay
    _label_efficiency_plot.py, _embedding_map_plot.py, _mistakes_plot.py
    _embedding_map.py        coordinates of maps, and how pages show them
    _style.py                colours, names and elements of displays

    _report.py               write_report, which fills report.html.jinja
    _report_material.py      the parts of the data, and the answers
    _report_tables.py, _report_details.py    rows of its tables
    _report_plot.py          its plots and images
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.evaluation._calibration import expected_calibration_error
from sk_medsiglip.evaluation._curve_band_plot import (
    PrecisionRecallBandDisplay,
    RocBandDisplay,
)
from sk_medsiglip.evaluation._curve_band_plot import roc_band as roc_band
from sk_medsiglip.evaluation._delong import delong_test
from sk_medsiglip.evaluation._embedding_map_plot import EmbeddingMapDisplay
from sk_medsiglip.evaluation._evaluate import evaluate
from sk_medsiglip.evaluation._label_efficiency import label_efficiency
from sk_medsiglip.evaluation._label_efficiency_plot import LabelEfficiencyDisplay
from sk_medsiglip.evaluation._mistakes_plot import MistakesDisplay
from sk_medsiglip.evaluation._net_benefit import net_benefit
from sk_medsiglip.evaluation._net_benefit_plot import DecisionCurveDisplay
from sk_medsiglip.evaluation._operating_point import (
    OperatingPoint,
    choose_operating_point,
)
from sk_medsiglip.evaluation._operating_point_classifier import (
    OperatingPointClassifier,
)
from sk_medsiglip.evaluation._published import known_training_data, published_results
from sk_medsiglip.evaluation._reliability_plot import ReliabilityDisplay
from sk_medsiglip.evaluation._report import write_report
from sk_medsiglip.evaluation._subgroup_plot import SubgroupForestDisplay

__all__ = [
    "DecisionCurveDisplay",
    "EmbeddingMapDisplay",
    "LabelEfficiencyDisplay",
    "MistakesDisplay",
    "OperatingPoint",
    "OperatingPointClassifier",
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
    "net_benefit",
    "published_results",
    "write_report",
]

name_by_room(globals())
