"""``MistakesDisplay``: the images that a classifier is most wrong about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._axes import draw_grid
from sk_medsiglip._drawn_names import drawn
from sk_medsiglip.embedding import MedSigLIPVolumeEmbedder
from sk_medsiglip.evaluation._answers import (
    NO_PROBABILITIES,
    Question,
    Truth,
    ask,
    read_truth,
)
from sk_medsiglip.evaluation._leaks import AnyEmbedder, find_embedder, is_embedded
from sk_medsiglip.images import image_rows, read_image

_WORDS = 26  # characters of a label that fit above an image


@dataclass(eq=False, repr=False)
class MistakesDisplay:
    """Display of the worst mistakes: images whose true label was rated least likely.

    Look at them before tuning: some may have wrong labels, show another projection, or
    be cropped.

    The images are in the figure, and in a file only if you save it. They are images of
    patients, so treat the figure accordingly.

    Parameters
    ----------
    pictures : list of ndarray of shape (H, W) or (H, W, 3)
        The images, the worst mistake first.
    mistakes : DataFrame
        One row per image, with the columns ``row`` (among the samples), ``true``,
        ``predicted``, and ``probability`` (of the true label).
    title : str, default=None
        Title of the figure.

    Attributes
    ----------
    ax_, figure_
        The axes and figure of matplotlib.
    axes_ : list of matplotlib Axes
        The axes of each image.

    See Also
    --------
    sk_medsiglip.zero_shot.HeatmapDisplay : Show the parts of an image that match a
        prompt.

    Examples
    --------
    >>> from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.evaluation import MistakesDisplay
    >>> phantoms = make_chest_phantoms(80, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> probe = LinearProbe().fit(X[:40], phantoms.target[:40, 1])
    >>> display = MistakesDisplay.from_estimator(
    ...     probe, X[40:], phantoms.target[40:, 1], images=phantoms.images[40:],
    ...     n_images=4)
    >>> bool((display.mistakes["true"] != display.mistakes["predicted"]).all())
    True
    """

    pictures: Sequence[NDArray[Any]]
    mistakes: pd.DataFrame
    _: KW_ONLY
    title: str | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        images: Any = None,
        label: Any = None,
        n_images: int = 12,
        title: str | None = None,
        ax: Any = None,
        **reading: Any,
    ) -> Self:
        """Draw the worst mistakes of a fitted classifier.

        Parameters
        ----------
        estimator : classifier
            Fitted classifier with ``predict_proba``.
        X : array-like or list of n_samples images
            Input of the classifier: images or embeddings.
        y : array-like of shape (n_samples,) or (n_samples, n_findings)
            True classes; or 1, 0, and NaN where a finding is not known.
        images : list of n_samples images, default=None
            The images, if ``X`` holds embeddings: paths, arrays, or any other source of
            :func:`~sk_medsiglip.images.read_image`. Only those that are drawn are read.
        label : default=None
            The finding, if there are several; or a class, to compare it with all
            others.
        n_images : int, default=12
            Maximum number of images to draw.
        title : str, default=None
            Title of the figure. By default, the number of mistakes.
        ax : matplotlib Axes, default=None
            Axes to draw on. By default, a new figure.
        **reading
            Parameters of :func:`~sk_medsiglip.images.read_image`, such as ``intensity``
            and ``frame``. By default, the settings of the
            :class:`~sk_medsiglip.MedSigLIPEmbedder` of the pipeline, if there is one.

        Returns
        -------
        MistakesDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the estimator returns no probabilities, if ``label`` or ``images`` is
            needed, or if lengths differ.
        """
        embedder = find_embedder([estimator])
        if embedder is not None:
            reading = reading_of(embedder) | reading
        if images is None:
            if is_embedded(X, embedder) or isinstance(
                embedder, MedSigLIPVolumeEmbedder
            ):
                raise ValueError(
                    "X holds embeddings or studies: pass images=, one image of each."
                )
            images = X
        if n_images < 1:
            raise ValueError(f"n_images must be at least 1, got {n_images!r}.")
        sources = image_rows(images)
        if len(sources) != np.shape(y)[0]:
            raise ValueError(f"{len(sources)} images for {np.shape(y)[0]} labels.")
        truth = read_truth(y, [estimator], X, label=label)
        questions = ask("the classifier", estimator, X, truth)
        wrong, n_asked = find_mistakes(truth, questions, label)
        shown = wrong.head(n_images).reset_index(drop=True)
        pictures = [read_image(sources[row], **reading) for row in shown["row"]]
        if title is None:
            of = "" if label is None else f"{label}: "
            title = f"{of}{len(wrong):,} of {n_asked:,} wrong"
            title += f", the {len(shown)} worst" if len(shown) < len(wrong) else ""
        return cls(pictures, shown, title=title).plot(ax)

    @classmethod
    def from_predictions(
        cls, y_true: ArrayLike, y_prob: ArrayLike, images: Any, **options: Any
    ) -> Self:
        """Draw the worst mistakes of given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_findings)
            True labels, as in :meth:`from_estimator`.
        y_prob : array-like
            Probabilities of the second class, of each class, or of each finding.
        images : list of n_samples images
            The images, as in :meth:`from_estimator`.
        **options
            The other parameters of :meth:`from_estimator`.

        Returns
        -------
        MistakesDisplay
            The display, drawn.
        """
        return cls.from_estimator(y_prob, y_true, y_true, images=images, **options)

    def plot(self, ax: Any = None, *, n_columns: int = 4) -> Self:
        """Draw the images in a grid.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw the grid in. By default, a new figure.
        n_columns : int, default=4
            Number of images per row.

        Returns
        -------
        MistakesDisplay
            The display, drawn.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        captions = [
            f"row {row.row}\n{drawn(f'true: {row.true}', _WORDS)}, "
            f"p {row.probability:.2f}\n{drawn(f'said: {row.predicted}', _WORDS)}"
            for row in self.mistakes.itertuples()
        ]
        self.ax_, self.axes_ = draw_grid(
            ax,
            list(zip(self.pictures, captions, strict=True)),
            n_columns,
            purpose="Drawing mistakes",
            title=self.title,
            nothing="no mistakes",
        )
        self.figure_ = self.ax_.figure
        return self


def reading_of(embedder: AnyEmbedder) -> dict[str, Any]:
    """Return the parameters of ``read_image`` that an embedder uses."""
    names = ("intensity", "frame", "max_pixels")
    of_images = getattr(embedder, "embedder_", embedder)
    return {name: getattr(of_images, name) for name in names}


def find_mistakes(
    truth: Truth, questions: list[Question], label: Any
) -> tuple[pd.DataFrame, int]:
    """Return all mistakes, the worst first, and the number of images with a label.

    The columns are ``row``, ``true``, ``predicted`` and ``probability`` of the true
    label.
    """
    if truth.kind == "findings" and label is None:
        raise ValueError(
            f"there are several findings: pass label=, one of {truth.names}."
        )
    if any(one.probability is None or one.decision is None for one in questions):
        raise ValueError(NO_PROBABILITIES)
    asked: list[Any] = questions  # all have a decision
    if truth.kind == "classes" and label is None:
        probability = np.column_stack([one.risk for one in asked])
        decided = np.column_stack([one.decision for one in asked]).argmax(axis=1)
        rows = np.arange(len(truth.target))
        names = np.asarray(truth.names, dtype=object)
        of_true = probability[rows, truth.target]
        true, said = names[truth.target], names[decided]
    else:
        one = asked[truth.place(label)]
        yes, no = str(one.label), f"no {one.label}"
        if truth.kind == "binary" and one.label == truth.classes[1]:
            no, yes = (str(name) for name in truth.classes)
        rows = one.rows
        of_true = np.where(one.ill, one.risk, 1 - one.risk)
        true, said = np.where(one.ill, yes, no), np.where(one.decision, yes, no)
    table = pd.DataFrame(
        {"row": rows, "true": true, "predicted": said, "probability": of_true}
    )
    wrong = table[table["true"] != table["predicted"]]
    return wrong.sort_values("probability", kind="stable"), len(rows)
