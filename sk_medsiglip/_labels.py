"""Reading ``y``: one of several classes, or several binary labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import assert_all_finite, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from sk_medsiglip._warning import warn_user
from sk_medsiglip.exceptions import LabelCodesWarning, PromptWarning


@dataclass(frozen=True, eq=False)
class Labels:
    """Checked labels of samples.

    ``classes`` are sorted; None means several labels. ``target`` is the index of the
    class, with NaN for blanks of a single finding; or 1, 0, and NaN for unknown labels.
    ``names`` are the column names of several labels, if any.
    """

    classes: NDArray[Any] | None  # (n_classes,)
    target: NDArray[Any]  # (n_samples,) or (n_samples, n_labels)
    names: NDArray[Any] | None = None  # (n_labels,)

    @property
    def n_rows(self) -> int:
        """Number of rows of coefficients, which is 1 for two classes."""
        if self.classes is None:
            return int(self.target.shape[1])
        return 1 if len(self.classes) == 2 else len(self.classes)

    @property
    def classes_attribute(self) -> NDArray[Any]:
        """The ``classes_`` of an estimator that learns these labels."""
        if self.classes is None:
            return np.tile([0, 1], (self.target.shape[1], 1))
        return self.classes

    def by_label(self) -> list[NDArray[Any]]:
        """Return the target of each label, or that of the classes."""
        return list(self.target.T) if self.classes is None else [self.target]

    def class_weights(
        self, class_weight: Any, sample_weight: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Return the weights of the classes, ``(n_classes,)``, for each label.

        ``class_weight`` is as in scikit-learn; a list has one entry per label. Classes
        without a sample have weight 1.
        """
        names = np.array([0, 1]) if self.classes is None else self.classes
        targets = self.by_label()
        each = class_weight
        if not isinstance(class_weight, list):
            each = [class_weight] * len(targets)
        if len(each) != len(targets):
            raise ValueError(
                f"class_weight has {len(each)} entries for {len(targets)} labels."
            )
        weights = []
        for target, one in zip(targets, each, strict=True):
            known = ~np.isnan(target.astype(np.float64))
            index = target[known].astype(np.intp)
            present = np.unique(index)
            of_class = np.ones(len(names))
            of_class[present] = compute_class_weight(
                one,
                classes=names[present],
                y=names[index],
                sample_weight=sample_weight[known],
            )
            weights.append(of_class)
        return weights

    def weights(
        self, class_weight: Any, sample_weight: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the weights of the samples, with one column per label if several."""
        if class_weight is None:
            return sample_weight
        columns = [
            # Unknown labels may have any weight.
            sample_weight * of_class[np.nan_to_num(target).astype(np.intp)]
            for target, of_class in zip(
                self.by_label(),
                self.class_weights(class_weight, sample_weight),
                strict=True,
            )
        ]
        return np.column_stack(columns) if self.classes is None else columns[0]

    def counted(self, weight: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return a mask of the samples with a positive weight and a known class.

        Blanks of several labels are not masked here; the solver of each label skips
        them.
        """
        known = self.classes is None or ~np.isnan(self.target)
        return (weight > 0) & known

    def keep(self, rows: NDArray[np.bool_]) -> Labels:
        """Return the labels of some samples, with only the classes that occur."""
        target = self.target[rows]
        if self.classes is None:
            return Labels(None, target, self.names)
        present, index = np.unique(target.astype(np.intp), return_inverse=True)
        if len(present) < 2:
            raise ValueError(
                "all known samples with a positive weight have the same class, "
                f"{self.classes[present].tolist()}; a classifier needs two classes."
            )
        return Labels(self.classes[present], index)


def check_labels(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike | None,
    classes: NDArray[Any] | None = None,
    *,
    findings: NDArray[Any] | None = None,
    unlabelled: bool = False,
    blanks: bool = False,
) -> Labels:
    """Check and normalise ``y``.

    Parameters
    ----------
    estimator : estimator or function
        Named in the message if ``y`` is None.
    X : array-like of shape (n_samples, n_features)
        Samples of the labels.
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Labels; may be sparse.
    classes : ndarray of shape (n_classes,), default=None
        All possible classes, sorted, if they are known; some may not occur. If they are
        names and ``y`` holds integers from 0 to ``n_classes - 1``, as from a label
        encoder, these are taken as indices and become the classes, with a warning.
    findings : ndarray of shape (n_findings,), default=None
        Names of the findings in ``y``, in the order of its columns. Together with
        ``classes`` it is a single finding.
    unlabelled : bool, default=False
        Whether a column of several labels may be all NaN.
    blanks : bool, default=False
        Whether a single column of 1 and 0 may hold NaN, None or NA for unknown labels.
        Its classes are 0 and 1, and its target is NaN for unknown labels.

    Returns
    -------
    Labels

    Raises
    ------
    ValueError
        If there are fewer than two classes, an unknown class, values that are not
        labels, or columns in another order than the findings.
    """
    if y is None:
        name = getattr(estimator, "__name__", type(estimator).__name__)
        raise ValueError(f"{name} requires y to be passed, but the target y is None.")
    given: Any = y
    target = given.toarray() if scipy.sparse.issparse(y) else np.asarray(given)
    check_consistent_length(X, target)
    _check_shape(target, classes, findings)
    if findings is not None:
        check_columns(y, findings)
    blank = np.asarray(pd.isna(target))
    if target.ndim == 2 and target.shape[1] == 1:
        # A table with one column, or with blanks, is a single finding.
        table = hasattr(y, "columns") or blank.any()
        target, blank = column_or_1d(target, warn=not table), blank.ravel()
    if target.ndim == 2:
        columns = getattr(y, "columns", None)
        names = None if columns is None else np.asarray(columns, dtype=str)
        values = check_indicator(target)
        empty = np.flatnonzero(np.isnan(values).all(axis=0))
        if empty.size and not unlabelled:
            raise ValueError(f"column {empty[0]} of y has no known label.")
        return Labels(None, values, names)
    if blanks and blank.any() and set(known := target[~blank].tolist()) <= {0, 1}:
        both = np.unique(np.array(known, dtype=int)) if classes is None else classes
        if both.tolist() == [0, 1]:
            return Labels(both, check_indicator(target))
    if target.dtype == object and blank.any():
        raise ValueError(
            "Input y contains missing values (None, NaN or NA). Only labels of 1 and 0 "
            "may be blank; leave these rows out."
        )
    assert_all_finite(target, input_name="y")
    check_classification_targets(target)
    if classes is not None:
        return _find_classes(target, classes)
    classes, index = np.unique(target, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y holds only one class, {classes.tolist()}; a classifier needs samples "
            "of at least two classes."
        )
    return Labels(classes, index)


def known_labels(y: Any, classes: Any = None) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the known labels, and the rows of the samples that have any.

    Parameters
    ----------
    y : array-like of shape (n_samples,), (n_samples, 1) or (n_samples, n_labels)
        Labels as for :func:`check_labels`.
    classes : ndarray of shape (n_classes,) or (n_labels, 2), default=None
        Classes of the classifier that is compared with them. By default, any.

    Returns
    -------
    truth : ndarray of shape (n_known,) or (n_known, n_labels)
        Classes; for several labels 1, 0, and NaN for unknown ones.
    rows : ndarray of shape (n_known,)
        Row numbers of the labelled samples.
    """
    values = y.toarray() if scipy.sparse.issparse(y) else np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = column_or_1d(values, warn=classes is None)
    if classes is not None and values.shape[1:] != np.shape(classes)[:-1]:
        expected = np.shape(classes)[:-1] or "one"
        raise ValueError(
            f"y has shape {values.shape}; this classifier predicts {expected} label(s) "
            "per sample."
        )
    if values.ndim not in (1, 2):
        raise ValueError(
            "y must have shape (n_samples,) for classes, or (n_samples, n_labels); got "
            f"shape {values.shape}."
        )
    values = check_indicator(values) if values.ndim == 2 else values
    known = ~np.asarray(pd.isna(values)).reshape(len(values), -1)
    rows = np.flatnonzero(known.any(axis=1))
    if not rows.size:
        raise ValueError("y has no known label: all entries are NaN, None or NA.")
    truth = values[rows]
    if truth.ndim == 2:
        return truth, rows
    # Convert an array of objects through a list, so that numpy finds its type.
    truth = np.array(truth.tolist()) if truth.dtype == object else truth
    assert_all_finite(truth, input_name="y")
    check_classification_targets(truth)
    return truth, rows


def check_columns(y: Any, findings: Iterable[Any]) -> None:
    """Raise if the columns of ``y`` are in another order; warn about other names.

    Parameters
    ----------
    y : array-like
        Labels. Only the columns of a DataFrame are checked.
    findings : iterable
        Names of the findings in the expected order.

    Raises
    ------
    ValueError
        If a column has the name of another finding.

    Warns
    -----
    PromptWarning
        If columns have other names than the findings in their places.
    """
    named = [str(name) for name in getattr(y, "columns", ())]
    wanted = [str(name) for name in findings]
    if not named or named == wanted or len(named) != len(wanted):
        return
    if any(a != b and a in wanted for a, b in zip(named, wanted, strict=True)):
        raise ValueError(
            f"the columns of y are {named}, but the findings are {wanted}: scores "
            f"would compare the wrong ones. Pass y[{wanted}]."
        )
    pairs = zip(named, wanted, strict=True)
    taken = ", ".join(f"{a!r} for {b!r}" for a, b in pairs if _plain(a) != _plain(b))
    if taken:
        warn_user(
            f"columns of y are used by position: {taken}. If that is right, rename "
            "them; otherwise put them in the order of the prompts.",
            PromptWarning,
        )


def finding_names(estimator: Any, default: Any = None) -> Any:
    """Return the names of a fitted estimator's findings, or the default."""
    return getattr(estimator, "findings_", getattr(estimator, "label_names_", default))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().casefold()


def _check_shape(
    target: NDArray[Any],
    classes: NDArray[Any] | None,
    findings: NDArray[Any] | None,
) -> None:
    """Raise if ``y`` has more or fewer columns than expected."""
    if classes is not None and np.prod(target.shape[1:]) > 1:
        expected = "(n_samples,), one label per sample"
    elif (
        classes is None
        and findings is not None
        and (target.shape[1:] != (len(findings),))
    ):
        expected = (
            f"(n_samples, {len(findings)}), with columns in the order {list(findings)}"
        )
    else:
        return
    raise ValueError(f"y has shape {target.shape}; here it must be {expected}.")


def _find_classes(target: NDArray[Any], classes: NDArray[Any]) -> Labels:
    """Return the labels as indices into known classes."""
    if _are_codes(target, classes):
        read = ", ".join(f"{i} = {name!r}" for i, name in enumerate(classes.tolist()))
        warn_user(
            f"y holds numbers, but classes are names; they are read as {read}: "
            "places in sorted order, as cross_val_predict and other tools of "
            "scikit-learn number classes. If they have another meaning, or if a class "
            "does not occur in the labels, pass names.",
            LabelCodesWarning,
        )
        return Labels(np.arange(len(classes)), target)
    places = {one: place for place, one in enumerate(classes.tolist())}
    given = target.tolist()
    unknown = list(dict.fromkeys(one for one in given if one not in places))
    if unknown:
        raise ValueError(
            f"y holds the labels {unknown[:5]}, but the classes are "
            f"{classes.tolist()}. If -1 means uncertain, replace it first: "
            "y.replace(-1, np.nan)."
        )
    return Labels(classes, np.array([places[one] for one in given], dtype=np.intp))


def _are_codes(target: NDArray[Any], classes: NDArray[Any]) -> bool:
    """Whether labels are numbers from a label encoder, some of which may be missing."""
    return (
        target.dtype.kind in "iu"
        and classes.dtype.kind not in "iufb"
        and bool(((target >= 0) & (target < len(classes))).all())
    )


def check_indicator(target: NDArray[Any]) -> NDArray[np.float64]:
    """Return 1, 0 and NaN as float64; raise for other values."""
    try:
        # astype alone would fail for NA of pandas, which is an unknown label.
        values = np.where(pd.isna(target), np.nan, target).astype(np.float64)
    except (TypeError, ValueError) as error:
        given = target.ravel().tolist()
        strange = [one for one in given if _is_not_a_number(one)] or given
        raise ValueError(
            "a label must hold 1, 0, and NaN for unknown ones; got "
            f"{target.dtype} values such as {strange[0]!r}."
        ) from error
    odd = ~np.isin(values, [0, 1]) & ~np.isnan(values)
    if odd.any():
        raise ValueError(
            "a label must hold 1, 0, and NaN for unknown ones; got "
            f"{values[odd][0]:g}. If -1 means uncertain, replace it first: "
            "y.replace(-1, np.nan)."
        )
    return values


def _is_not_a_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return not pd.isna(value)
    return False
