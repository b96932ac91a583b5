"""Make ``docs/benchmarks.md`` from the JSON files in ``benchmarks/results``.

Run ``python -m benchmarks.report``. Nothing is measured here and no figure is written
by hand. The words of each section stand in ``_report_sections.py``; a results file
without words becomes tables all the same. ``_report_targets.py`` lists the targets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks._report_sections import SECTIONS, Section
from benchmarks._report_targets import TARGETS

__all__ = ["make_report", "read_results"]

_RESULTS = Path(__file__).parent / "results"
_REPORT = Path(__file__).parents[1] / "docs" / "benchmarks.md"

_INTRODUCTION = """\
# Benchmarks

Made by `python -m benchmarks.report` from `benchmarks/results/*.json`; do not edit.
Each comparison runs both sides on the same machine, in one run, in turns; the best turn
of each side counts. How to run them, with what beside this package:
[benchmarks/README.md](../benchmarks/README.md). Absolute times belong to the machine
that each section names; ratios carry over better.
"""


def read_results(folder: Path = _RESULTS) -> dict[str, dict[str, Any]]:
    """Return what each results file holds, by its name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }


def make_report(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page."""
    parts = [_INTRODUCTION]
    targets = list(_target_rows(results))
    if targets:
        parts.append("## Targets\n\n" + _table(["", "measured", "asked", ""], targets))
    known = [name for name in SECTIONS if name in results]
    for name in known + sorted(set(results) - set(known)):
        section = SECTIONS.get(name, Section(name.replace("_", " "), ""))
        parts.append(f"## {section.title}\n")
        if section.words:
            parts.append(_wrap(section.words))
        said, figures, nested = _parted(results[name])
        parts.append(_wrap(f"`benchmarks/results/{name}.json`: {said}."))
        parts.extend(figures + _tables(nested, level=3))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _target_rows(results: Mapping[str, Any]) -> Any:
    for what, way, sense, limit in TARGETS:
        found: Any = results
        for key in way:
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, int | float):
            met = found <= limit if sense == "at most" else found >= limit
            asked = f"{sense} {_show(limit)}"
            yield [what, _show(found), asked, "met" if met else "**missed**"]


def _tables(nested: Mapping[str, Any], level: int) -> list[str]:
    """Return tables of records: neighbours with the same keys share one."""
    parts = []

    def shape(item: tuple[str, Any]) -> tuple[str, ...] | None:
        value = item[1]
        if not isinstance(value, Mapping) or not value:
            return None
        deep = any(isinstance(one, Mapping) for one in value.values())
        return None if deep else tuple(value)

    for columns, group in groupby(nested.items(), key=shape):
        items = list(group)
        if columns is not None and (len(items) > 1 or len(columns) <= 6):
            rows = [[k, *(_show(one) for one in v.values())] for k, v in items]
            parts.append(_table(["", *columns], rows))
        elif columns is not None:
            (key, value), *_ = items
            parts.append(
                _table([key, ""], [[k, _show(one)] for k, one in value.items()])
            )
        else:
            for key, value in items:
                if not isinstance(value, Mapping):
                    parts.append(f"{key}: {_show(value)}\n")
                    continue
                parts.append(f"{'#' * min(level, 5)} {key}\n")
                said, figures, deeper = _parted(value)
                if said:
                    parts.append(_wrap(f"{said}."))
                parts.extend(figures + _tables(deeper, level + 1))
    return parts


def _parted(values: Mapping[str, Any]) -> tuple[str, list[str], dict[str, Any]]:
    """Return the words and numbers of a record, a table of its measures, the rest."""
    nested = {k: v for k, v in values.items() if isinstance(v, Mapping)}
    figures = [[k, _show(v)] for k, v in values.items() if isinstance(v, float)]
    said = [
        f"{k} {_show(v)}"
        for k, v in values.items()
        if not isinstance(v, Mapping | float)
    ]
    return ", ".join(said), [_table(["", ""], figures)] if figures else [], nested


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _show(value: Any) -> str:
    """Return a figure as people read it: three digits, thousands apart."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        # Cosines and areas live near 1: three digits would round what they say away.
        if 0.95 < value < 1:
            return f"{value:.5f}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, list):
        return " ".join(map(_show, value))
    return str(value)


def _wrap(text: str, width: int = 88) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line]) + "\n"


def main() -> None:
    """Write the page."""
    _REPORT.write_text(make_report(read_results()), encoding="utf-8")
    print(f"wrote {_REPORT.relative_to(_REPORT.parents[1])}")


if __name__ == "__main__":
    main()
