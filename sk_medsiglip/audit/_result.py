"""``Audit``: the tables of all checks of a data set, and sentences on them."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sk_medsiglip._files import new_file
from sk_medsiglip._page import render_page
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip.audit import _sentences as sentences
from sk_medsiglip.audit._copies import SAME
from sk_medsiglip.audit._page_tables import show_table

#: Error probability at which a slice counts as found, over all slices and findings.
_SLICE_LEVEL = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class Audit(VersionedPickle):
    """Result of :func:`audit`.

    Attributes
    ----------
    tables : dict of str to DataFrame
        The table of each check that was made: "labels", "disagreements", "copies",
        "unusual", "shortcuts", "slices".
    left_out : dict of str to str
        The checks that were not made, and the reason.
    n_images : int
        Number of images.
    n_patients : int or None
        Number of patients; None where they were not given.
    notes : list of str
        Sentences on images and patients, such as how many images could not be read.
    images : collection of images or None
        The images, if the audit was given them and not their embeddings.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.audit import audit
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 60)
    >>> X = rng.normal(size=(60, 8)) + 3 * y[:, None]
    >>> found = audit(X, y, metadata={"site": ["A", "B"] * 30})
    >>> found
    Audit(n_images=60, labels=0, copies=0, unusual=0, shortcuts=0, slices=0)
    """

    tables: dict[str, pd.DataFrame]
    left_out: dict[str, str]
    n_images: int
    n_patients: int | None = None
    notes: list[str] = field(default_factory=list)
    images: Any = None

    @property
    def label_issues(self) -> pd.DataFrame:
        """Labels that look wrong, as :func:`find_label_issues` lists them."""
        return self.table("labels")

    @property
    def disagreements(self) -> pd.DataFrame:
        """Patients with different labels, as :func:`find_disagreements` lists them."""
        return self.table("disagreements")

    @property
    def copies(self) -> pd.DataFrame:
        """Pictures that are there twice, as :func:`find_copies` lists them."""
        return self.table("copies")

    @property
    def unusual(self) -> pd.DataFrame:
        """Images far from those of other patients, with their ``distance``.

        ``attrs["n_expected"]`` is the number that is expected by chance.
        """
        return self.table("unusual")

    @property
    def shortcuts(self) -> pd.DataFrame:
        """All columns of metadata, as :func:`find_shortcuts` tests them."""
        return self.table("shortcuts")

    @property
    def slices(self) -> pd.DataFrame:
        """All subgroups, as :func:`worst_slices` tests them."""
        return self.table("slices")

    @property
    def found(self) -> dict[str, int]:
        """Number of faults of each check that was made.

        Labels count if they are likely wrong (``n_likely`` of
        :func:`find_label_issues`), not if they are merely listed; copies if they are
        the same picture with another patient or label; shortcuts if the table says so;
        slices at a p-value of .05; whatever else is listed counts.
        """
        made = [name for name in self.tables if self.made(name)]
        counts = {name: len(self.faults(name)) for name in made}
        if "labels" in counts:
            counts["labels"] = sum(self.label_issues.attrs["n_likely"].values())
        return counts

    def made(self, name: str) -> bool:
        """Return whether a check was made.

        Parameters
        ----------
        name : str
            Name of the check, a key of ``tables`` or ``left_out``.

        Returns
        -------
        bool
            False if it was left out.
        """
        return name in self.tables and name not in self.left_out

    def table(self, name: str) -> pd.DataFrame:
        """Return the table of a check.

        Parameters
        ----------
        name : str
            Name of the check, a key of ``tables``.

        Returns
        -------
        DataFrame
            The table.

        Raises
        ------
        ValueError
            If the check was not made; says why.
        """
        if not self.made(name):
            reason = self.left_out.get(name, f"checks are {', '.join(self.tables)}")
            raise ValueError(f"{name!r} was not looked for: {reason}.")
        return self.tables[name]

    def faults(self, name: str) -> pd.DataFrame:
        """Return the rows of a table that count as faults.

        Parameters
        ----------
        name : str
            Name of the check, a key of ``tables``.

        Returns
        -------
        DataFrame
            Some rows of the table.

        Raises
        ------
        ValueError
            If the check was not made; says why.
        """
        table = self.table(name)
        if name == "shortcuts":
            return table[table["shortcut"].astype(bool)]
        if name == "slices":
            return table[(table["p_value"] <= _SLICE_LEVEL) & (table["loss"] > 0)]
        if name == "copies":
            harmless = table.get("same_group", False) & table["same_label"]
            return table[(table["kind"] == SAME) & ~harmless]
        return table

    def summary(self) -> str:
        """Return what was found in plain sentences, a line each.

        Returns
        -------
        str
            It names findings, columns and levels of metadata, but neither patients nor
            files.
        """
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """Return the sentences of the summary.

        Returns
        -------
        list of str
            The sentences.
        """
        said = [sentences.opening(self.n_images, self.n_patients)]
        for name in self.tables:
            if self.made(name):
                said += sentences.on(name, self.tables[name], self.faults(name))
        said += self.notes
        return said + sentences.on_left_out(self.left_out)

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        show_images: bool = False,
        images: Any = None,
        names: ArrayLike | None = None,
        title: str = "Audit of a data set",
        max_rows: int = 50,
    ) -> Path:
        """Write the summary and the tables as one HTML file.

        The file holds all it shows and asks nothing of any network. It names neither
        patients nor files unless ``names`` do.

        Parameters
        ----------
        path : path-like
            File to write; one that is there is replaced.
        show_images : bool, default=False
            Whether to show the images that are listed. **The file then holds patients'
            images**, and says so.
        images : collection of n_samples images, default=None
            Images for these pictures, where the audit was given embeddings.
        names : array-like of shape (n_samples,), default=None
            Names of the images. By default, "row 0" and so on. File names may name
            patients.
        title : str, default="Audit of a data set"
            Title of the page.
        max_rows : int, default=50
            Largest number of rows of each table.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        ValueError
            If there are no images to show, or lengths differ.
        """
        file = Path(path)
        if not file.parent.is_dir():
            raise FileNotFoundError(
                f"the folder {file.parent} does not exist; make it first."
            )
        images = self.images if images is None else images
        if show_images and images is None:
            raise ValueError(
                "show_images: the audit was given embeddings, so pass images= too."
            )
        shown_names = None
        if names is not None:
            shown_names = [str(one) for one in np.asarray(names, dtype=object)]
        for what, given in (("names", shown_names), ("images", images)):
            if given is not None and len(given) != self.n_images:
                raise ValueError(
                    f"{what} holds {len(given)} for {self.n_images} images; pass one "
                    "for each."
                )
        shown = {
            name: show_table(
                name,
                self.tables[name],
                max_rows=max_rows,
                names=shown_names,
                images=images if show_images else None,
            )
            for name in self.tables
            if self.made(name)
        }
        captions = {name: sentences.NAMES[name].capitalize() for name in shown}
        context = {
            "title": title,
            "sentences": self.sentences(),
            "tables": shown,
            "contents": {"summary": "Summary"} | captions,
            "shows_images": show_images,
        }
        page = render_page("audit", "audit.html.jinja", context)
        with new_file(file) as draft:
            draft.write_text(page, encoding="utf-8", errors="replace")
        return file

    def __repr__(self) -> str:
        """Return the counts of what was found."""
        found = "".join(f", {name}={n}" for name, n in self.found.items())
        return f"Audit(n_images={self.n_images}{found})"

    def _repr_html_(self) -> str:
        """Return the summary as a list, for notebooks."""
        items = "".join(f"<li>{html.escape(one)}</li>" for one in self.sentences())
        return f"<ul>{items}</ul>"
