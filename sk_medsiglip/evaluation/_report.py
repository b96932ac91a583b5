"""``write_report``: an evaluation of classifiers on a test set, as one HTML file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sk_medsiglip._files import new_file
from sk_medsiglip._page import render_page
from sk_medsiglip._resampling import check_resampling
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.audit import Audit
from sk_medsiglip.embedding import MedSigLIPVolumeEmbedder
from sk_medsiglip.evaluation import _report_details as details
from sk_medsiglip.evaluation import _report_tables as tables
from sk_medsiglip.evaluation._answers import ask, last_step
from sk_medsiglip.evaluation._evaluate import subgroup_members, tabulate
from sk_medsiglip.evaluation._figures import check_metrics
from sk_medsiglip.evaluation._leaks import (
    as_rows,
    count_copies,
    find_embedder,
    find_leaks,
    is_embedded,
    warn_of_leaks,
)
from sk_medsiglip.evaluation._net_benefit import check_prevalence
from sk_medsiglip.evaluation._published import published_results, warn_if_trained_on
from sk_medsiglip.evaluation._report_material import (
    Material,
    Part,
    noted,
    uses_demonstration,
)
from sk_medsiglip.evaluation._report_plot import check_drawing
from sk_medsiglip.evaluation._style import metric_name

_TITLE = "Evaluation of a medical image classifier"
_NAMED = 3  # labels in a title


def write_report(
    path: str | os.PathLike[str],
    estimators: Mapping[str, Any] | Any,
    X: Any,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    subgroups: Any = None,
    metrics: Any = None,
    pos_label: Any = None,
    X_tune: Any = None,
    y_tune: ArrayLike | None = None,
    groups_tune: ArrayLike | None = None,
    sensitivity: float = 0.95,
    prevalence: float | None = None,
    X_train: Any = None,
    y_train: ArrayLike | None = None,
    groups_train: ArrayLike | None = None,
    audit: Audit | None = None,
    show_mistakes: int = 0,
    images: Any = None,
    image_names: ArrayLike | None = None,
    embedder: Any = None,
    published: str | None = None,
    title: str | None = None,
    data: str | None = None,
    remarks: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
    command: str | None = None,
    n_bootstrap: int = 2000,
    level: float = 0.95,
    random_state: int = 0,
    verbose: int | bool = 0,
) -> Path:
    """Write an evaluation of fitted classifiers as one HTML file.

    The file is self-contained: it holds its styles and images, runs no scripts and
    needs no network, so it can be mailed, printed and archived. It does not name
    patients or paths.

    Parameters
    ----------
    path : path-like
        File to write. An existing file is replaced.
    estimators : dict or estimator
        ``{name: fitted classifier}`` or scores, as in :func:`evaluate`. The mistakes of
        the first one are listed.
    X : array-like or list of n_samples images
        The test set, as the classifiers take it.
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        True classes; or 1, 0, and NaN where a finding is not known.
    groups : array-like of shape (n_samples,), default=None
        Patients. Without them the report says that its intervals may be too narrow.
    subgroups, metrics, pos_label
        Parameters of :func:`evaluate`.
    X_tune, y_tune, groups_tune : default=None
        Tuning data, on which thresholds are chosen; they should be neither training nor
        test data. Without them the report says that no threshold was chosen.
    sensitivity : float, default=0.95
        Target of the thresholds, reached in the mean (see
        :func:`choose_operating_point`).
    prevalence : float, default=None
        Share of patients with the label where the classifier will be used, such as
        0.02. PPV and NPV at the chosen thresholds are then shown for this share too.
    X_train, y_train, groups_train : default=None
        Training data. They are counted, and their patients and images are compared
        with those of the test set. Any of the three may be missing.
    audit : Audit, default=None
        An audit of the training data (:func:`sk_medsiglip.audit.audit`). Its summary
        becomes a section.
    show_mistakes : int, default=0
        Number of mistakes per label that are shown as images. **The file then holds
        images of patients**, and says so.
    images : list of n_samples images, default=None
        The images of the mistakes, needed if ``X`` holds embeddings.
    image_names : array-like of shape (n_samples,), default=None
        Names of the test images in the list of mistakes. By default, "row 0" and so
        on. Note that file names may identify patients.
    embedder : MedSigLIPEmbedder, default=None
        The embedder that computed ``X``, if it holds embeddings. The report gives its
        model and revision. The embedder of a pipeline is found automatically.
    published : str, default=None
        A modality, such as "chest X-ray". Results for the same labels from the
        MedSigLIP model card are then shown, marked as Google's
        (:func:`published_results`). The demonstration checkpoint is not MedSigLIP and
        cannot be compared with it.
    title : str, default=None
        Title of the page. By default, it names the labels.
    data : str, default=None
        Origin of the test images, in a sentence. If it names a public data set that
        MedSigLIP was trained on, the report says so.
    remarks : sequence of str, default=()
        Sentences to add to the summary, such as the number of images that were left
        out and the reason.
    notes : dict, default=None
        Statements that only people can make, with the keys "intended_use",
        "out_of_scope", "population", "reference", "limits", "oversight" and "contact".
        Missing ones become marked blanks, and further keys become further entries.
    command : str, default=None
        The command that was typed, if any.
    n_bootstrap : int, default=2000
        Number of resamples.
    level : float, default=0.95
        Confidence level of the intervals, for example 0.95.
    random_state : int, default=0
        Seed of the random number generator.
    verbose : int, default=0
        Verbosity. Values above 0 show a progress bar.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    FileNotFoundError
        If the folder of the file does not exist.
    ValueError
        If parameters contradict each other.

    Warns
    -----
    LeakageWarning, UserWarning
        The warnings that the report shows, raised after it is written.

    See Also
    --------
    evaluate : Return the results as a table.

    Notes
    -----
    Each classifier predicts the test set once. Curves are drawn for the first 20
    labels. With 2,000 images a label takes about two seconds and 120 kB per classifier.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.evaluation import write_report
    >>> phantoms = make_chest_phantoms(120, random_state=0)
    >>> embedder = MedSigLIPEmbedder("demo")
    >>> X, y = embedder.fit_transform(phantoms.images), phantoms.target[:, 1]
    >>> probe = LinearProbe().fit(X[:60], y[:60])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = write_report(
    ...         Path(folder) / "report.html", {"probe": probe}, X[60:], y[60:],
    ...         embedder=embedder, data="Drawn phantoms.", n_bootstrap=50)
    ...     text = report.read_text(encoding="utf-8")
    >>> "not a medical device" in text
    True
    """
    check_drawing()
    file = Path(path)
    if not file.parent.is_dir():
        raise FileNotFoundError(
            f"the folder {file.parent} does not exist: make it first."
        )
    if published is not None:
        published_results(published)  # raises before the computation rather than after
    if not 0 < sensitivity < 1:
        raise ValueError(f"sensitivity must be above 0 and below 1, got {sensitivity}.")
    check_prevalence(prevalence)
    check_resampling(n_bootstrap, level)
    wanted = check_metrics(metrics)
    named = _named(estimators)
    plain = list(named.values())
    warned: list[Warning] = []
    with noted(warned):
        test = Part.of("test", X, y, groups, plain, pos_label)
        tuning, training = (
            Part.of(name, *part, plain, pos_label, test)
            for name, part in (
                ("tuning", (X_tune, y_tune, groups_tune)),
                ("training", (X_train, y_train, groups_train)),
            )
        )
    assert test is not None  # X and y are given
    if tuning is not None and (tuning.X is None or tuning.y is None):
        raise ValueError(
            "thresholds are chosen with both X_tune and y_tune, and one of them is "
            "missing."
        )
    names = _check_names(image_names, test.n_images)
    found = find_embedder(plain)
    embedded = is_embedded(X, found)
    if images is None:
        if show_mistakes and (embedded or isinstance(found, MedSigLIPVolumeEmbedder)):
            raise ValueError(
                "show_mistakes: X holds embeddings or studies, so pass images= too, "
                "one image per sample."
            )
        images = X
    embedder = found if embedder is None else embedder
    is_demo = uses_demonstration([*plain, embedder])
    if published is not None and is_demo:
        raise ValueError(
            "published: the classifier uses the demonstration checkpoint, and the "
            "published results are those of MedSigLIP, a different model. Leave "
            "published=None."
        )
    sampling: dict[str, Any] = {
        "n_bootstrap": n_bootstrap,
        "level": level,
        "random_state": random_state,
    }
    truth = test.truth
    assert truth is not None  # y is given
    members = subgroup_members(subgroups, test.n_images)
    several = len(np.unique(group_numbers(groups, test.n_images))) < test.n_images
    by_patient = "max" if several and truth.kind != "classes" else None
    comparer = None if embedded else found or embedder
    with noted(warned):
        if data is not None:
            warn_if_trained_on(data)
        asked = {name: ask(name, one, X, truth) for name, one in named.items()}
        table = tabulate(
            asked, truth, wanted, members, groups=groups, by_patient=by_patient,
            verbose=verbose, **sampling,
        )  # fmt: skip
        others = [one for one in (tuning, training) if one is not None]
        leaks = [
            leak
            for one in others
            for leak in find_leaks(
                one.name, X, test.groups, one.X, one.groups, comparer, name_ids=False
            )
        ]
        warn_of_leaks(leaks)
        rows = as_rows(X, comparer)
    material = Material(
        named, asked, test, others, table, leaks, names, sampling, embedder, warned,
        list(remarks), is_demo, count_copies(rows), members,
    )  # fmt: skip
    with noted(warned):
        # Thresholds and mistakes come first, since they add remarks to the summary.
        context = {
            "thresholds": details.operating_points(material, sensitivity),
            "mistakes": details.mistakes(material, images, show_mistakes),
            "maps": details.maps(material, rows),
            "title": title or f"{_TITLE}: {_words(material.labels)}",
            "notes": notes or {},
            "described": data,
            "sensitivity": sensitivity,
            "prevalence": prevalence,
            "show_mistakes": show_mistakes,
            "published": published,
            "audited": [] if audit is None else audit.sentences(),
            "command": command,
            "now": datetime.now(UTC),
        }
        page = render_page(
            "evaluation",
            "report.html.jinja",
            {**context, "material": material, "tables": tables, "details": details},
            {"count": tables.count, "metric_name": metric_name},
        )
    with new_file(file) as draft:
        draft.write_text(page, encoding="utf-8", errors="replace")
    for message, category in dict.fromkeys((str(one), type(one)) for one in warned):
        warnings.warn(message, category, stacklevel=2)
    return file


def _named(estimators: Any) -> dict[str, Any]:
    if isinstance(estimators, Mapping):
        if not estimators:
            raise ValueError("estimators is empty: pass {name: fitted classifier}.")
        return {str(name): one for name, one in estimators.items()}
    if not hasattr(estimators, "predict"):
        return {"scores": estimators}
    return {type(last_step(estimators)).__name__: estimators}


def _words(labels: Sequence[Any]) -> str:
    """Return the labels as they stand in the title."""
    shown = list(map(str, labels[:_NAMED]))
    if len(labels) > _NAMED:
        shown.append(f"{len(labels) - _NAMED} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _check_names(names: Any, n_images: int) -> list[str]:
    if names is None:
        return [f"row {row}" for row in range(n_images)]
    if len(names) != n_images:
        raise ValueError(f"image_names has {len(names)} names for {n_images} images.")
    return [str(name) for name in names]
