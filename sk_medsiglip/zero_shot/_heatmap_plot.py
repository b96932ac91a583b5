"""``HeatmapDisplay``: a heatmap drawn over its image."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._drawn_names import drawn_lines
from sk_medsiglip._optional import import_optional
from sk_medsiglip.embedding import MedSigLIPEmbedder, plain_rows
from sk_medsiglip.images import image_rows, read_image
from sk_medsiglip.zero_shot._classifier import ZeroShotClassifier
from sk_medsiglip.zero_shot._heatmap import heatmap_of, map_on_image, prompt_heatmap
from sk_medsiglip.zero_shot._prompt_search import PromptSearchCV

#: Pixels a side that are drawn of larger images; more than a figure shows.
_MAX_SHOWN = 1024

_NOTICE = "a hint, not a localisation"
_SCALED = "scaled to this image: somewhere is always highest"


@dataclass(eq=False, repr=False)
class HeatmapDisplay:
    """Draw a map of :func:`prompt_heatmap` over its image.

    A hint about what the score saw, not a localisation; the picture says so too.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, 3)
        The image as it is to be shown.
    heatmap : ndarray of shape (grid, grid)
        One number a patch.
    title : str, default=None
        Above the picture.
    pad : bool, default=False
        Whether the image was padded to a square before the model saw it. The part of
        the map that lies on the padding is left out.
    relative : bool, default=True
        Range of the map that is drawn. True: from its median to its highest value; some
        place then stands out in every image. False, for maps of a prompt minus its
        negative by ``method="value"``, where 0 means something: from 0 to the largest
        value of either sign, so that nothing is drawn where the negative is likelier
        everywhere.

    Attributes
    ----------
    ax_, figure_
        matplotlib's axes and figure.
    im_ : matplotlib.image.AxesImage
        The overlay; its array is the map at the drawn pixels of the image.

    See Also
    --------
    prompt_heatmap : The numbers.

    Examples
    --------
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.zero_shot import HeatmapDisplay
    >>> image = make_chest_phantoms(1, random_state=0).images[0]
    >>> display = HeatmapDisplay.from_prompt(
    ...     image,
    ...     "pleural effusion",
    ...     negative="no pleural effusion",
    ...     model="demo",
    ... )
    >>> display.heatmap.shape
    (8, 8)
    """

    image: NDArray[Any]
    heatmap: NDArray[np.floating]
    _: KW_ONLY
    title: str | None = None
    pad: bool = False
    relative: bool = True

    def plot(
        self,
        ax: Any = None,
        *,
        alpha: float = 0.6,
        cmap: str = "autumn_r",
        colorbar: bool = True,
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where; None makes a figure.
        alpha : float, default=0.6
            Opacity of the highest values; lower ones are fainter.
        cmap : str, default="autumn_r"
            Colours; best none that are grey, white or black.
        colorbar : bool, default=True
            Whether to draw the scale.

        Returns
        -------
        self

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        pyplot = import_optional(
            "matplotlib.pyplot", extra="plot", purpose="Drawing a heatmap"
        )
        if ax is None:
            _, ax = pyplot.subplots(figsize=(5, 5.2), layout="constrained")
        height, width = self.image.shape[:2]
        step = -(-max(height, width) // _MAX_SHOWN)
        shown = self.image[::step, ::step]
        values = self._on_image(step)
        low, high = self._range()
        place = (-0.5, width - 0.5, height - 0.5, -0.5)
        ax.imshow(shown, cmap="gray", extent=place, interpolation="bilinear")
        self.im_ = ax.imshow(
            values,
            cmap=cmap,
            vmin=low,
            vmax=high,
            alpha=alpha * np.clip((values - low) / (high - low), 0, 1),
            extent=place,
            interpolation="bilinear",
        )
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        notice = f"{_NOTICE}\n{_SCALED}" if self.relative else _NOTICE
        ax.set_xlabel(notice, fontsize=8, color="#666666")
        if self.title is not None:
            ax.set_title(drawn_lines(self.title, 44), fontsize=10)
        self.ax_, self.figure_ = ax, ax.figure
        if colorbar:
            # As high as the picture, whatever its proportions.
            beside = ax.inset_axes((1.03, 0, 0.05, 1))
            bar = self.figure_.colorbar(self.im_, cax=beside)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=8)
        return self

    @classmethod
    def from_prompt(
        cls,
        image: Any,
        prompt: Any,
        *,
        negative: Any = None,
        title: str | None = None,
        ax: Any = None,
        alpha: float = 0.6,
        cmap: str = "autumn_r",
        colorbar: bool = True,
        **parameters: Any,
    ) -> Self:
        """Compute the map of a prompt, and draw it.

        Parameters
        ----------
        image, prompt, negative
            As in :func:`prompt_heatmap`.
        title : str, default=None
            None is the prompt.
        ax, alpha, cmap, colorbar
            As in :meth:`plot`.
        **parameters
            Further parameters of :func:`prompt_heatmap`: ``model``, ``method``,
            ``pad``, ``frame``, ...

        Returns
        -------
        HeatmapDisplay
            Drawn.
        """
        heatmap = prompt_heatmap(image, prompt, negative=negative, **parameters)
        reading = {k: parameters[k] for k in ("intensity", "frame") if k in parameters}
        display = cls(
            read_image(image_rows([image])[0], **reading),
            heatmap,
            title=_as_title(prompt) if title is None else title,
            pad=bool(parameters.get("pad", False)),
            relative=negative is None or parameters.get("method", "value") != "value",
        )
        return display.plot(ax, alpha=alpha, cmap=cmap, colorbar=colorbar)

    @classmethod
    def from_estimator(
        cls,
        estimator: Pipeline,
        image: Any,
        label: Any = None,
        *,
        method: str = "value",
        title: str | None = None,
        ax: Any = None,
        alpha: float = 0.6,
        cmap: str = "autumn_r",
        colorbar: bool = True,
    ) -> Self:
        """Compute the map of a class or finding of a zero-shot pipeline, and draw it.

        Parameters
        ----------
        estimator : Pipeline
            A fitted :func:`make_zero_shot_pipeline`: its embedder says how the image
            becomes pixels, its classifier holds the vectors of the prompts. One that
            ends in a :class:`PromptSearchCV` shows the prompts that were chosen.
            Computed by torch, whatever its engine.
        image : path, bytes, file object, PIL image or array
            One image.
        label : default=None
            A class or a finding. Of a finding, the map is present minus absent. None
            is the class that is predicted, or the likeliest finding. With
            ``ensemble="max"`` each answer is mapped by the one of its prompts that is
            likest to this image, as it was scored; else by its mean vector.
        method : {"value", "legrad"}, default="value"
            As in :func:`prompt_heatmap`.
        title : str, default=None
            None is the label.
        ax, alpha, cmap, colorbar
            As in :meth:`plot`.

        Returns
        -------
        HeatmapDisplay
            Drawn.

        Raises
        ------
        TypeError
            If the estimator is not such a pipeline.
        ValueError
            If no prompt stands for the label.
        NotFittedError
            If it is not fitted.

        Examples
        --------
        >>> from sk_medsiglip import make_zero_shot_pipeline
        >>> from sk_medsiglip.datasets import make_chest_phantoms
        >>> from sk_medsiglip.zero_shot import HeatmapDisplay
        >>> images = make_chest_phantoms(2, random_state=0).images
        >>> pipe = make_zero_shot_pipeline(
        ...     {
        ...         "effusion": {
        ...             "positive": "pleural effusion",
        ...             "negative": "no pleural effusion",
        ...         }
        ...     },
        ...     model="demo",
        ... ).fit(images)
        >>> HeatmapDisplay.from_estimator(pipe, images[0]).title
        'effusion'
        """
        embedder, classifier = _parts(estimator)
        check_is_fitted(classifier)
        source = image_rows([image])[0]
        if label is None:
            label = _likeliest(estimator, classifier, source)
        findings = getattr(classifier, "findings_", None)
        named = classifier.classes_ if findings is None else findings
        labels = np.asarray(named).tolist()
        if label not in labels:
            raise ValueError(
                f"label={label!r} is none of those that prompts stand for: {labels}."
            )
        vectors = _answer_vectors(classifier, embedder, source)
        if findings is None:
            wanted = vectors[labels.index(label)]
        else:
            absent, present = vectors.reshape(len(labels), 2, -1)[labels.index(label)]
            wanted = present - absent
        names = ("intensity", "frame", "max_pixels")
        reading = {name: getattr(embedder, name) for name in names}
        display = cls(
            read_image(source, **reading),
            heatmap_of(embedder, source, wanted, method),
            title=str(label) if title is None else title,
            pad=embedder.pad,
            relative=findings is None or method != "value",
        )
        return display.plot(ax, alpha=alpha, cmap=cmap, colorbar=colorbar)

    def _on_image(self, step: int) -> NDArray[np.float32]:
        """Return the map at every ``step``-th pixel of the image."""
        height, width = self.image.shape[:2]
        above = left = 0
        side = (height, width)
        if self.pad:
            longest = max(side)
            above, left = (longest - height) // 2, (longest - width) // 2
            side = (longest, longest)
        rows = np.arange(0, height, step) + 0.5 + above
        columns = np.arange(0, width, step) + 0.5 + left
        return map_on_image(self.heatmap, rows, columns, side)

    def _range(self) -> tuple[float, float]:
        """Return the values at which the overlay begins and is strongest."""
        values = np.asarray(self.heatmap)
        low = float(np.median(values)) if self.relative else 0.0
        high = float(values.max() if self.relative else np.abs(values).max())
        # A map without any difference draws nothing.
        return low, high if high > low else low + 1


def _parts(estimator: Any) -> tuple[MedSigLIPEmbedder, ZeroShotClassifier]:
    steps = [step for _, step in getattr(estimator, "steps", ())]
    steps = [step for step in steps if step not in (None, "passthrough")]
    match steps:
        case [MedSigLIPEmbedder() as embedder, ZeroShotClassifier() as classifier]:
            return embedder, classifier
        case [MedSigLIPEmbedder() as embedder, PromptSearchCV() as search]:
            check_is_fitted(search)
            return embedder, search.best_estimator_
    kinds = [type(step).__name__ for step in steps] or type(estimator).__name__
    raise TypeError(
        "A heatmap needs a pipeline of a MedSigLIPEmbedder and a ZeroShotClassifier, "
        f"got {kinds}. make_zero_shot_pipeline(prompts).fit(images) is one; for other "
        "models use HeatmapDisplay.from_prompt(image, prompt)."
    )


def _answer_vectors(
    classifier: ZeroShotClassifier, embedder: MedSigLIPEmbedder, source: Any
) -> NDArray[np.floating]:
    """Return the vectors that an image was scored by, ``(n_answers, width)``."""
    if classifier._starts is None:
        vectors: NDArray[np.floating] = classifier.class_embeddings_
        return vectors.reshape(-1, vectors.shape[-1])
    of_answers = np.split(classifier.prompt_embeddings_, classifier._starts[1:])
    image = plain_rows(embedder, [source])[0]
    return np.stack([own[np.argmax(own @ image)] for own in of_answers])


def _likeliest(estimator: Any, classifier: ZeroShotClassifier, source: Any) -> Any:
    findings = getattr(classifier, "findings_", None)
    if findings is None:
        return estimator.predict([source])[0]
    if len(findings) == 1:
        return findings[0]
    return findings[int(np.argmax(estimator.predict_proba([source])[0]))]


def _as_title(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else ", ".join(prompt)
