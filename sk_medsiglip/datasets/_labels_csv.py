"""Loading of a user's own collection: a table of labels, or a folder of images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sk_medsiglip.datasets._tables import (
    Meaning,
    check_columns,
    class_name,
    list_images,
    locate,
    parse_names,
    parse_numbers,
    read_binary,
    read_table,
    some_values,
)
from sk_medsiglip.exceptions import DatasetError

_MEANINGS = ("ignore", "negative", "positive")
#: Folder names that mean splits rather than classes, if all folders have such names.
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test"))


def load_labels_csv(
    file: str | PathLike[str],
    *,
    path_column: str | None = None,
    label_columns: str | Sequence[str] | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    uncertain: Meaning = "ignore",
    blank: Meaning = "ignore",
) -> Bunch:
    """Load a table of images and labels, as distributed by hospitals and challenges.

    Parameters
    ----------
    file : str or path-like
        A CSV file, or a TSV file by its suffix, with a header and one row per image, in
        UTF-8 or, with a byte order mark, in UTF-16. The separator may also be a
        semicolon, tab or bar, which may be stated in the first line as "sep=;". Commas
        in a column of numbers are decimal commas, unless they may separate thousands.
    path_column : str or None, default=None
        Column of paths, relative to the folder of the file or absolute, or of URLs. By
        default, the first column with an existing file, starting with columns named
        "path", "file", "filename", "filepath", "image" or "image_path".
    label_columns : str, sequence of str or None, default=None
        Name of a single column, which holds a finding if its values are 0 and 1, and
        classes otherwise; or a list of names of findings. None uses all columns whose
        values are only 0, 1, -1 and blanks. In a finding, "NA", "N/A", "NaN", "None",
        "null" and "." are blanks too; among classes such a word is a class. Spaces
        around a class are ignored, capitals are not.
    group_column : str or None, default=None
        Column of patient ids.
    split_column : str or None, default=None
        Column of splits, such as "train" and "test".
    uncertain, blank : {"ignore", "negative", "positive"}, default="ignore"
        Meaning of -1 and of an empty cell in a finding. "ignore" gives NaN, which means
        unknown to the heads and splitters of this package; scikit-learn's refuse it.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        One row per image, in the order of the file:

        paths : list of str
            Paths of the files, which are not opened here; see
            :func:`~sk_medsiglip.images.check_images`.
        target : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Findings as 0 and 1, in float64 with NaN if some are unknown; classes as
            strings, with None for empty cells.
        target_names : list of str
            The findings; or the classes, sorted.
        groups, split : ndarray of shape (n_samples,) or None
            Values of these columns. They are numbers if that loses nothing: "007",
            "1.10", "10E2" and numbers of twenty digits stay strings.
        frame : DataFrame
            The whole table; columns of numbers are converted, except for names such as
            "007".

    Raises
    ------
    DatasetError
        If the file does not exist.
    ValueError
        If the file is not a table, a row is longer than the header, two columns have
        the same name, or a column is missing or has other values.

    Examples
    --------
    >>> import tempfile
    >>> from sk_medsiglip.datasets import load_labels_csv, make_chest_phantoms
    >>> from sk_medsiglip.datasets import write_phantoms
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = write_phantoms(make_chest_phantoms(8, random_state=0), folder)
    ...     bunch = load_labels_csv(f"{folder}/labels.csv", group_column="patient")
    >>> bunch.target.shape, bunch.target_names[:2]
    ((8, 6), ['cardiomegaly', 'effusion'])
    >>> len(set(bunch.groups))
    3
    """
    for parameter, value in (("uncertain", uncertain), ("blank", blank)):
        if value not in _MEANINGS:
            raise ValueError(
                f"{parameter} must be one of {list(_MEANINGS)}, got {value!r}."
            )
    source = Path(file).expanduser()
    frame, path_column = _read_frame(source, path_column, (group_column, split_column))
    names = _names(frame, label_columns, [path_column, group_column, split_column])
    findings = {name: read_binary(frame[name], uncertain, blank) for name in names}
    if all(values is not None for values in findings.values()):
        target: NDArray[Any] = np.column_stack(list(findings.values()))  # type: ignore[arg-type]
        if not np.isnan(target).any():
            target = target.astype(np.int64)
        target_names = list(names)
        if isinstance(label_columns, str):
            target = target[:, 0]
    elif isinstance(label_columns, str):
        target, target_names = _read_classes(frame[label_columns])
    else:
        odd = next(name for name, values in findings.items() if values is None)
        raise ValueError(
            f"label_columns: several columns must each hold 0, 1, -1 and blanks, but "
            f"{odd!r} holds {some_values(frame[odd])}. For a column of classes, pass "
            f"only its name: label_columns={odd!r}."
        )
    return Bunch(
        paths=[locate(name, source.parent) for name in frame[path_column]],
        target=target,
        target_names=target_names,
        groups=_column(frame, group_column, "group_column"),
        split=_column(frame, split_column, "split_column"),
        frame=frame,
    )


def load_image_folder(folder: str | PathLike[str]) -> Bunch:
    """Load a folder of images whose sub-folders are classes.

    Parameters
    ----------
    folder : str or path-like
        Folder with images in sub-folders named after their class, at any depth; or in
        ``train/CLASS``, ``val/CLASS``, ``test/CLASS``. Hidden files are ignored, and
        folders added by operating systems, such as ``__MACOSX`` and ``@eaDir``.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        One row per image, sorted by path:

        paths : list of str
            PNG, JPEG, TIFF, WebP and BMP files, identified by their names, and DICOM
            files, identified by their names or content.
        target : ndarray of shape (n_samples,), or None
            Names of classes, with None for images outside of sub-folders. None without
            sub-folders.
        target_names : list of str
            The classes, sorted.
        groups : None
            Always None, since a folder does not identify patients.
        split : ndarray of shape (n_samples,), or None
            Name of the first folder, if all first folders are named after splits.
        frame : DataFrame
            Columns ``path``, relative to the folder, and ``label`` and ``split`` if
            there are any.

    Raises
    ------
    DatasetError
        If the folder does not exist.
    ValueError
        If it holds no image.

    Warns
    -----
    UserWarning
        If there are images next to folders of splits; they are left out.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sk_medsiglip.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("normal/1.png", "pneumonia/2.png"):
    ...         path = Path(folder, name)
    ...         path.parent.mkdir()
    ...         Image.new("L", (8, 8)).save(path)
    ...     bunch = load_image_folder(folder)
    >>> bunch.target.tolist(), bunch.target_names
    (['normal', 'pneumonia'], ['normal', 'pneumonia'])
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DatasetError(
            f"{root} is not a folder. Pass the folder that holds the images, or load a "
            "table of them with load_labels_csv."
        )
    files = list_images(root)
    if not files:
        raise ValueError(
            f"{root} holds no image: a PNG, JPEG, TIFF, WebP, BMP or DICOM file is "
            "expected, also in a sub-folder."
        )
    files = _without_strays(files, root)
    inside = [path.relative_to(root) for path in files]
    frame = pd.DataFrame({"path": [str(path) for path in inside]})
    folders = [path.parts[:-1] for path in inside]
    split = None
    if all(parts and parts[0].lower() in _SPLITS for parts in folders):
        split = np.array([parts[0] for parts in folders], dtype=object)
        folders = [parts[1:] for parts in folders]
        frame["split"] = split
    target, classes = None, []
    if any(folders):
        target = np.array([p[0] if p else None for p in folders], dtype=object)
        classes = sorted({parts[0] for parts in folders if parts})
        frame["label"] = target
    return Bunch(
        paths=[str(path) for path in files],
        target=target,
        target_names=classes,
        groups=None,
        split=split,
        frame=frame,
    )


def _without_strays(files: list[Path], root: Path) -> list[Path]:
    """Leave out images next to folders of splits, with a warning."""
    strays = [path for path in files if path.parent == root]
    others = [path for path in files if path.parent != root]
    folders = {path.relative_to(root).parts[0] for path in others}
    # A single folder may be a class with such a name.
    if (
        not strays
        or len(folders) < 2
        or any(name.lower() not in _SPLITS for name in folders)
    ):
        return files
    warnings.warn(
        f"{len(strays)} images next to {' and '.join(sorted(folders))} are left out; "
        f"the first is {strays[0].name}.",
        UserWarning,
        stacklevel=3,
    )
    return others


def _read_frame(
    source: Path, path_column: str | None, names: Sequence[str | None]
) -> tuple[pd.DataFrame, str]:
    """Return the table and its path column; ``names`` are columns of identifiers."""
    cells, path_column = read_table(source, path_column)
    typed = {
        name: (parse_names if name in names else parse_numbers)(cells[name])
        for name in cells.columns
    }
    typed[path_column] = cells[path_column]
    return pd.DataFrame(typed), path_column


def _names(
    frame: pd.DataFrame,
    label_columns: str | Sequence[str] | None,
    taken: Sequence[str | None],
) -> list[str]:
    """Return the names of the columns of labels."""
    if label_columns is not None:
        names = list(
            [label_columns] if isinstance(label_columns, str) else label_columns
        )
        if not names:
            raise ValueError("label_columns is empty; pass at least one column.")
        check_columns(frame, names, "label_columns")
        return names
    names = [
        name
        for name in frame.columns
        if name not in taken
        and read_binary(frame[name], "ignore", "ignore") is not None
    ]
    if not names:
        raise ValueError(
            "there is no column whose values are only 0, 1, -1 and blanks. Pass "
            f"label_columns, one of: {', '.join(frame.columns)}."
        )
    return names


def _read_classes(column: pd.Series) -> tuple[NDArray[Any], list[str]]:
    target = np.array(
        [None if pd.isna(value) else class_name(value).strip() for value in column],
        dtype=object,
    )
    classes = sorted({one for one in target if one is not None})
    if not classes:
        raise ValueError(f"label_columns: {column.name!r} holds no label.")
    # Without blanks, return an array of strings, as scikit-learn's encoders do.
    return (target if None in target else target.astype(str)), classes


def _column(frame: pd.DataFrame, name: str | None, parameter: str) -> Any:
    if name is None:
        return None
    check_columns(frame, [name], parameter)
    column = frame[name]
    empty = np.flatnonzero(column.isna())
    if empty.size:
        raise ValueError(
            f"{parameter}: {name!r} is empty in {empty.size} rows; the first is row "
            f"{empty[0] + 1}."
        )
    return column.to_numpy()
