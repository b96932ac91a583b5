"""Prompt sets: prompts with a name, a version and a source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from sk_medsiglip.exceptions import PromptError
from sk_medsiglip.prompts._prompt_file import read_prompt_file
from sk_medsiglip.prompts._question import is_pair

_SETS = Path(__file__).parent / "sets"
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, eq=False, repr=False)
class PromptSet(Mapping[Any, Any]):
    """Prompts with a name, a version and a source.

    A prompt set is a mapping that can be passed as the parameter ``prompts`` of
    classifiers; its templates are filled in. Two sets, or a set and a dict, are equal
    if these texts are equal.

    Parameters
    ----------
    name : str
        Name of the set; for a file its name without the suffix.
    prompts : dict
        ``{class: texts}``, or ``{finding: {"positive": texts, "negative": texts}}``,
        before templates are filled in. Texts may have weights: ``{text: weight}``.
    title : str, default=""
        Description of the classes or findings in one line.
    version : int, default=1
        Version of the texts. It is incremented with every change, so that results can
        be reported with the version of the prompts.
    modality : str, default=""
        Kind of image for which the texts are written.
    source : str, default=""
        Source of the classes and of the wording.
    notes : str, default=""
        Limits of the set, and properties that have not been measured.
    templates : tuple of str, default=()
        Texts with one ``{}`` each. To pass them separately, write
        ``ZeroShotClassifier(s.prompts, templates=s.templates or None)``.
    ordinal : bool, default=False
        Whether the classes are grades in increasing order, for
        ``ZeroShotClassifier(s, ordinal=s.ordinal)``. ``classes_`` is sorted in any
        case; the names of the grades in this package sort by severity.

    See Also
    --------
    load_prompt_set : Load a set of this package, or a file.
    lint_prompts : Find problems of a set for a certain model.

    Examples
    --------
    >>> from sk_medsiglip.prompts import load_prompt_set
    >>> grades = load_prompt_set("retinopathy_grades")
    >>> grades
    PromptSet('retinopathy_grades', version=1, 5 grades, 17 prompts)
    >>> grades[3][0]
    'diabetic retinopathy severity: severe'
    >>> grades.select([0, 4])
    PromptSet('retinopathy_grades', version=1, 2 grades, 7 prompts)
    """

    name: str
    prompts: dict[Any, Any] = field(default_factory=dict)
    title: str = ""
    version: int = 1
    modality: str = ""
    source: str = ""
    notes: str = ""
    templates: tuple[str, ...] = ()
    ordinal: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.templates, str):
            object.__setattr__(self, "templates", (self.templates,))

    def __getitem__(self, key: Any) -> Any:
        value = self.prompts[key]
        if is_pair(value):
            return {side: self._fill(texts) for side, texts in value.items()}
        return self._fill(value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.prompts)

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return (
            f"PromptSet({self.name!r}, version={self.version}, {len(self)} "
            f"{self.kind}, {self.n_prompts} prompts)"
        )

    @property
    def kind(self) -> str:
        """Kind of the set: ``"findings"``, ``"grades"`` or ``"classes"``."""
        if any(map(is_pair, self.prompts.values())):
            return "findings"
        return "grades" if self.ordinal else "classes"

    @property
    def n_prompts(self) -> int:
        """Number of texts after filling in templates."""
        return sum(
            sum(map(len, value.values())) if is_pair(value) else len(value)
            for value in self.values()
        )

    def select(self, names: Iterable[Any]) -> PromptSet:
        """Return a set with some of the classes or findings.

        Parameters
        ----------
        names : iterable
            Names of the classes or findings. Findings become columns in this order;
            classes are sorted by the classifier in any case.

        Returns
        -------
        PromptSet
            The selected prompts.

        Raises
        ------
        PromptError
            If a name is not in the set or is repeated, or if there are no names.

        Examples
        --------
        >>> from sk_medsiglip.prompts import load_prompt_set
        >>> list(load_prompt_set("chest_xray_13").select(["edema", "fracture"]))
        ['edema', 'fracture']
        """
        if isinstance(names, str):
            raise PromptError(f"select needs a list of names: [{names!r}].")
        wanted = list(names)
        unknown = [name for name in wanted if name not in self.prompts]
        if unknown:
            raise PromptError(
                f"{self.name!r} has no {', '.join(map(repr, unknown))}"
                f"{_suggest(unknown[0], self.prompts)} It has: "
                f"{', '.join(map(repr, self.prompts))}."
            )
        if not wanted or len(set(wanted)) < len(wanted):
            raise PromptError(
                f"select needs at least one name, without repeats; got {wanted!r}."
            )
        return replace(self, prompts={name: self.prompts[name] for name in wanted})

    def _fill(self, texts: Any) -> Any:
        """Return a list of texts, or a dict of texts with weights."""
        forms = self.templates or ("{}",)
        if isinstance(texts, Mapping):
            return {form.replace("{}", t): texts[t] for form in forms for t in texts}
        listed = [texts] if isinstance(texts, str) else texts
        return [form.replace("{}", text) for form in forms for text in listed]


def load_prompt_set(name_or_path: str | os.PathLike[str]) -> PromptSet:
    """Load a prompt set of this package, or a YAML or JSON file.

    Parameters
    ----------
    name_or_path : str or path-like
        A name from :func:`list_prompt_sets`, or the path of a file. A str is a path if
        it ends in ``.yaml``, ``.yml`` or ``.json`` or contains a folder. The file holds
        fields of :class:`PromptSet`, of which only ``prompts`` is required, or only
        prompts.

    Returns
    -------
    PromptSet
        The prompt set.

    Raises
    ------
    PromptError
        If there is no such set or file, or if the file is not valid. The message names
        the line or key.

    Notes
    -----
    YAML is read with the safe loader of PyYAML, which does not run code.

    Examples
    --------
    >>> from sk_medsiglip import ZeroShotClassifier
    >>> from sk_medsiglip.prompts import load_prompt_set
    >>> findings = load_prompt_set("chest_xray_13").select(["edema", "cardiomegaly"])
    >>> ZeroShotClassifier(findings, model="demo")
    ZeroShotClassifier(model='demo',
                       prompts=PromptSet('chest_xray_13', version=1, 2 findings, ...))
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and _is_name(name_or_path):
        path = find_prompt_set(name_or_path)
    return PromptSet(name=path.stem, **read_prompt_file(path))


def find_prompt_set(name: str) -> Path:
    """Return the file of a prompt set of this package.

    Parameters
    ----------
    name : str
        A name from :func:`list_prompt_sets`.

    Returns
    -------
    Path
        Path of the YAML file.

    Raises
    ------
    PromptError
        If there is no such set.
    """
    path = _SETS / f"{name}.yaml"
    if not _is_name(name) or not path.is_file():
        names = _shipped_names()
        raise PromptError(
            f"there is no prompt set {name!r}{_suggest(name, names)} The sets are "
            f"{', '.join(names)}. For a file pass its path, ending in "
            f"{', '.join(_SUFFIXES)}."
        )
    return path


def list_prompt_sets() -> pd.DataFrame:
    """Return a table of the prompt sets of this package.

    Returns
    -------
    DataFrame
        Columns ``name``, ``title``, ``kind`` ("classes" that exclude each other,
        "findings" that are present or absent, or "grades" in order of severity),
        ``n_classes``, ``n_prompts``, ``version`` and ``source``.

    Examples
    --------
    >>> from sk_medsiglip.prompts import list_prompt_sets
    >>> list_prompt_sets().set_index("name").loc["chest_xray_13", "n_classes"]
    np.int64(13)
    """
    sets = [load_prompt_set(name) for name in _shipped_names()]
    columns = ["name", "title", "kind", "n_prompts", "version", "source"]
    table = pd.DataFrame(
        [[getattr(s, one) for one in columns] for s in sets], columns=columns
    )
    table.insert(3, "n_classes", list(map(len, sets)))
    return table


def _shipped_names() -> list[str]:
    return sorted(path.stem for path in _SETS.glob("*.yaml"))


def _is_name(text: str) -> bool:
    return Path(text).name == text and not text.lower().endswith(_SUFFIXES)


def _suggest(name: Any, known: Iterable[Any]) -> str:
    close = get_close_matches(str(name), list(map(str, known)), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."
