"""Figures with intervals: what scores are worth, and what to do with them.

::

    _evaluate.py             evaluate: figures, differences, subgroups, by patient
    _answers.py              what estimators say, as questions that are judged alike
    _known_labels.py         labels and the scores that belong to them, checked
    _leaks.py                patients and pictures shared with other data
    _figures.py              a question's figures in all resamples at once
    _permutations.py         gaps of patients who change places
    _rates.py                sensitivity, specificity and their like, with intervals
    _delong.py               delong_test
    _calibration_error.py    expected_calibration_error
    _calibration_line.py     calibration slope and intercept
    _net_benefit.py          net_benefit
    _further_metrics.py      calibration, counts, figures at a threshold or prevalence
    _operating_point.py      choose_operating_point
    _published.py            published_results, known_training_data

    _label_efficiency.py     label_efficiency: worth with how many labels
    _label_draws.py          which images would have been labelled
    _draw_scores.py          what classifiers of such draws are worth

    _curve_band_plot.py      RocBandDisplay, PrecisionRecallBandDisplay
    _curve_bands.py          curves of a sample and its resamples
    _net_benefit_plot.py     DecisionCurveDisplay
    _reliability_plot.py, _subgroup_plot.py, _label_efficiency_plot.py,
    _embedding_map_plot.py, _mistakes_plot.py    the other displays
    _asked_label.py          the one label that a picture is of
    _palette.py              colours that everybody can tell apart
    _metric_names.py         how figures are called in tables and on axes

    _report.py               write_report
    _report_material.py      what it speaks of, gathered first
    _report_sections.py, _report_tables.py, _report_details.py,
    _report_decisions.py     its parts
    _report_plot.py          its pictures
    _report_html.py          elements whose texts are escaped, and the page
"""

from sk_medsiglip._public import name_by_room
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
from sk_medsiglip.evaluation._net_benefit import net_benefit
from sk_medsiglip.evaluation._net_benefit_plot import DecisionCurveDisplay
from sk_medsiglip.evaluation._operating_point import (
    OperatingPoint,
    choose_operating_point,
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
