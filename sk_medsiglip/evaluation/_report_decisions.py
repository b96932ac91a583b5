"""What a report says of decisions: counts, subgroups, patients, another prevalence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sk_medsiglip._splits import group_numbers
from sk_medsiglip.evaluation._evaluate import subgroup_members
from sk_medsiglip.evaluation._figures import Question, estimates
from sk_medsiglip.evaluation._further_metrics import further_estimates
from sk_medsiglip.evaluation._report_details import probability_or_score
from sk_medsiglip.evaluation._report_html import Html, join, paragraph, table
from sk_medsiglip.evaluation._report_material import Material
from sk_medsiglip.evaluation._report_tables import count, spread

__all__ = ["decisions"]

_COUNTS = ("true_positives", "false_negatives", "false_positives", "true_negatives")
_RATES = ("sensitivity", "specificity")
_HEAD = ["Found", "Missed", "False alarms", "Rightly spared", "Sensitivity"]


def decisions(material: Material, subgroups: Any, prevalence: float | None) -> Html:
    """Return what the chosen thresholds do: to all images, subgroups and patients."""
    n = material.test.n_images
    patients = group_numbers(material.test.groups, n)
    members = {"all images": np.ones(n, bool)} | subgroup_members(subgroups, n)
    values = [f"{one}@prevalence={prevalence}" for one in ("ppv", "npv") if prevalence]

    def cells(question: Question) -> list[Html | str]:
        found = further_estimates(question, (*_COUNTS, *values), patients)
        found |= estimates(question, np.ones((1, n), np.int32), _RATES, patients)
        level = material.settings["level"]
        return [count(found[one].value) for one in _COUNTS] + [
            spread(found[one].value, *found[one].interval(level)[:2])
            for one in (*_RATES, *values)
        ]

    content = []
    for name, questions in material.questions.items():
        rows = []
        for asked in questions:
            if (name, asked.label) not in material.thresholds:
                continue
            said = probability_or_score(asked)
            yes = replace(
                asked, decision=said >= material.thresholds[name, asked.label]
            )
            parts = {one: yes.among(chosen) for one, chosen in members.items()}
            if len(np.unique(patients)) < n:
                parts["patients"] = yes.of_patients(patients, "max")
            rows += [[asked.label, part, *cells(one)] for part, one in parts.items()]
        elsewhere = [f"{one} at {prevalence}" for one in ("PPV", "NPV") if prevalence]
        head = ["Label", "Counted", *_HEAD, "Specificity", *elsewhere]
        if rows:
            content.append(table(f"{name} at its thresholds", head, rows, n_words=2))
    note = (
        "A patient has the label, or is flagged, if any image has it or is. PPV and "
        "NPV are those where so many have the label, by Bayes' theorem."
    )
    return join(*content, paragraph(note)) if content else Html()
