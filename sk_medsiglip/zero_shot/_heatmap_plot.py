"""``HeatmapDisplay``: a heatmap drawn over its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from sk_medsiglip._axes import new_axes
from sk_medsiglip._drawn_names import drawn_lines
from sk_medsiglip.images import image_rows, read_image
from sk_medsiglip.zero_shot._heatmap import map_on_image, prompt_heatmap
from sk_medsiglip.zero_shot._heatmap_parts import as_grid, check_slices, make_sheet
from sk_medsiglip.zero_shot._heatmap_pipelines import map_by_pipeline, score_slices

#: Largest side of an image that is drawn, in pixels; figures show fewer.
_MAX_SHOWN = 1024

_NOTICE = "a hint, not a localisation"
_SCALED = "scaled to this image: some patch is always the highest"
_SCALED_SLICES = "scaled to this study: some slice is always the highest"
_FRAME = "#1f5fa8"  # around the best slice


@dataclass(eq=False, repr=False)
class HeatmapDisplay:
    """Display of an image with a map of a prompt, or of the scores of its parts.

    The map is a hint at the basis of a score, and not a localisation. The caption says
    so too.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, 3)
        The image to show.
    heatmap : ndarray of shape (grid, grid)
        One number per patch.
    title : str, default=None
        Title above the image.
    pad : bool, default=False
        Whether the image was padded to a square for the model. The part of the map on
        the padding is not drawn.
    relative : bool, default=True
        If True, the map is drawn from its median to its highest value, so that some
        place stands out in every image. If False, it is drawn from 0 to its largest
        absolute value, so that nothing is drawn if the negative is more similar
        everywhere. Use this for maps of a prompt minus its negative by
        ``method="value"``, where 0 has a meaning.
    slices : bool, default=False
        Whether the image is a sheet of slices with one number each, as made by
        :meth:`from_slices`. The map is then drawn without interpolation, and the slice
        with the highest number is framed.

    Attributes
    ----------
    ax_, figure_
        The axes and figure of matplotlib.
    im_ : matplotlib.image.AxesImage
        The overlay. Its array is the map at the drawn pixels of the image.

    See Also
    --------
    prompt_heatmap : Compute the map of a prompt.
    ZeroShotClassifier.instance_scores : Compute scores of the parts of an image.

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
    slices: bool = False

    def plot(
        self,
        ax: Any = None,
        *,
        alpha: float = 0.6,
        cmap: str = "autumn_r",
        colorbar: bool = True,
    ) -> Self:
        """Draw the image with the map over it.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure.
        alpha : float, default=0.6
            Opacity of the highest values. Lower values are more transparent.
        cmap : str, default="autumn_r"
            Colour map, which should not contain grey, white or black.
        colorbar : bool, default=True
            Whether to draw a colour bar.

        Returns
        -------
        self
            The display, drawn.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        ax = new_axes(ax, (5, 5.2), "Drawing a heatmap")
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
            alpha=alpha * np.clip(np.nan_to_num((values - low) / (high - low)), 0, 1),
            extent=place,
            interpolation="nearest" if self.slices else "bilinear",
        )
        if self.slices:
            self._frame_best(ax)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        scaled = _SCALED_SLICES if self.slices else _SCALED
        notice = f"{_NOTICE}\n{scaled}" if self.relative else _NOTICE
        ax.set_xlabel(notice, fontsize=8, color="#666666")
        if self.title is not None:
            ax.set_title(drawn_lines(self.title, 44), fontsize=10)
        self.ax_, self.figure_ = ax, ax.figure
        if colorbar:
            # As high as the image, whatever its proportions.
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
        """Compute the map of a prompt and draw it.

        Parameters
        ----------
        image, prompt, negative
            Parameters of :func:`prompt_heatmap`.
        title : str, default=None
            Title above the image. By default, the prompt.
        ax, alpha, cmap, colorbar
            Parameters of :meth:`plot`.
        **parameters
            Further parameters of :func:`prompt_heatmap`, such as ``model``, ``method``,
            ``pad`` and ``frame``.

        Returns
        -------
        HeatmapDisplay
            The display, drawn.
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
        **plot_params: Any,
    ) -> Self:
        """Compute the map of a class or finding by a fitted pipeline and draw it.

        Parameters
        ----------
        estimator : Pipeline
            One of two kinds of fitted pipelines:

            - a :func:`make_zero_shot_pipeline`, or one that ends in a
              :class:`PromptSearchCV`. The image is read by its embedder and compared
              with the prompts of its classifier, by torch in any case;
            - a pipeline of bags that ends in a classifier with ``instance_scores``,
              such as :class:`~sk_medsiglip.BagProbe`. These scores are drawn for the
              cells of an image (:class:`~sk_medsiglip.MedSigLIPPatchEmbedder`), or, as
              in :meth:`from_slices`, for the slices of a study
              (:class:`~sk_medsiglip.MedSigLIPVolumeEmbedder` with ``pooling=None``).
        image : path, bytes, file object, PIL image or array
            One image, or one study.
        label : default=None
            Class or finding. The map of a finding is present minus absent. By default,
            the predicted class, or the most likely finding. With ``ensemble="max"``
            each answer is mapped by its prompt that is most similar to the image, and
            else by its mean vector.
        method : {"value", "legrad"}, default="value"
            Method of :func:`prompt_heatmap`, without effect on scores of cells.
        title : str, default=None
            Title above the image. By default, the label; for a study, its slice with
            the highest score.
        **plot_params
            Parameters of :meth:`plot`: ``ax``, ``alpha``, ``cmap``, ``colorbar``; for a
            study also ``n_columns``.

        Returns
        -------
        HeatmapDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If the estimator is not such a pipeline.
        ValueError
            If the label is unknown to the classifier.
        NotFittedError
            If the pipeline is not fitted.

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
        study = score_slices(estimator, image, label)
        if study is not None:
            slices, scores, relative = study
            return cls.from_slices(
                slices, scores, title=title, relative=relative, **plot_params
            )
        source = image_rows([image])[0]
        found = map_by_pipeline(estimator, source, label, method)
        names = ("intensity", "frame", "max_pixels")
        reading = {name: getattr(found.embedder, name) for name in names}
        display = cls(
            read_image(source, **reading),
            found.heatmap,
            title=str(found.label) if title is None else title,
            pad=found.embedder.pad,
            relative=found.relative,
        )
        return display.plot(**plot_params)

    @classmethod
    def from_scores(
        cls,
        image: Any,
        scores: Any,
        *,
        title: str | None = None,
        pad: bool = False,
        relative: bool = True,
        intensity: Any = "auto",
        frame: int | str | None = None,
        **plot_params: Any,
    ) -> Self:
        """Draw the scores of the cells of an image over it.

        Parameters
        ----------
        image : path, bytes, file object, PIL image or array
            One image.
        scores : array-like of shape (grid**2,) or (grid, grid)
            One number per cell, row by row from the top left, such as
            ``head.instance_scores(bags)[0]``. An additional number at the end, for the
            pooled row, is ignored. Cells with NaN are not drawn.
        title, pad, relative
            Parameters of the class.
        intensity, frame
            Parameters for reading the image, as in
            :class:`~sk_medsiglip.MedSigLIPEmbedder`.
        **plot_params
            Parameters of :meth:`plot`: ``ax``, ``alpha``, ``cmap``, ``colorbar``. To
            compare two heads, pass two axes.

        Returns
        -------
        HeatmapDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the scores are not those of a square grid.

        Examples
        --------
        >>> import numpy as np
        >>> from sk_medsiglip.datasets import make_chest_phantoms
        >>> from sk_medsiglip.zero_shot import HeatmapDisplay
        >>> image = make_chest_phantoms(1, random_state=0).images[0]
        >>> HeatmapDisplay.from_scores(image, np.arange(64)).heatmap.shape
        (8, 8)
        """
        shown = read_image(image_rows([image])[0], intensity=intensity, frame=frame)
        grid = as_grid(scores)
        display = cls(shown, grid, title=title, pad=pad, relative=relative)
        return display.plot(**plot_params)

    @classmethod
    def from_slices(
        cls,
        slices: Sequence[NDArray[Any]],
        scores: Any,
        *,
        title: str | None = None,
        relative: bool = True,
        n_columns: int | None = None,
        **plot_params: Any,
    ) -> Self:
        """Draw the slices of a study, coloured by score, with the highest one framed.

        Parameters
        ----------
        slices : sequence of ndarray of shape (H, W) or (H, W, 3)
            The slices in order, as returned by
            :func:`~sk_medsiglip.images.read_study`, or the images of any other bag.
        scores : array-like of shape (n_instances,)
            One number per slice, such as ``head.instance_scores(bags)[0]``, or NaN.
            Numbers beyond the last slice must be NaN, as in the padding of short
            studies.
        title : str, default=None
            By default, the number of the slice with the highest score, counted from 1.
            With ``aggregate="max"`` this slice determines the prediction.
        relative : bool, default=True
            Parameter of the class.
        n_columns : int or None, default=None
            Slices per row. By default, the sheet is about twice as wide as high.
        **plot_params
            Parameters of :meth:`plot`: ``ax``, ``alpha``, ``cmap``, ``colorbar``.

        Returns
        -------
        HeatmapDisplay
            The display, drawn. Its image is the sheet, and its heatmap has one number
            per slice, and NaN for empty places in the last row.

        Raises
        ------
        ValueError
            If scores and slices differ in number, or no slice has a score.

        Examples
        --------
        >>> import numpy as np
        >>> from sk_medsiglip.zero_shot import HeatmapDisplay
        >>> slices = [np.zeros((16, 16), np.uint8)] * 5
        >>> HeatmapDisplay.from_slices(slices, [0, 1, 3, 2, np.nan]).title
        'slice 3 of 5 has the highest score'
        """
        values = check_slices(slices, scores)
        n_columns = n_columns or max(1, round(np.sqrt(2 * len(slices))))
        sheet, grid = make_sheet(slices, values, n_columns)
        if title is None:
            best = int(np.nanargmax(values)) + 1
            title = f"slice {best} of {len(slices)} has the highest score"
        display = cls(sheet, grid, title=title, relative=relative, slices=True)
        return display.plot(**plot_params)

    def _on_image(self, step: int) -> NDArray[np.float32]:
        """Return the map at every ``step``-th pixel of the image."""
        height, width = self.image.shape[:2]
        if self.slices:
            places = [
                np.arange(0, length, step) * n // length
                for length, n in zip((height, width), self.heatmap.shape, strict=True)
            ]
            return np.asarray(self.heatmap, dtype=np.float32)[np.ix_(*places)]
        above = left = 0
        side = (height, width)
        if self.pad:
            longest = max(side)
            above, left = (longest - height) // 2, (longest - width) // 2
            side = (longest, longest)
        rows = np.arange(0, height, step) + 0.5 + above
        columns = np.arange(0, width, step) + 0.5 + left
        return map_on_image(self.heatmap, rows, columns, side)

    def _frame_best(self, ax: Any) -> None:
        """Draw a frame around the slice with the highest score."""
        best = np.unravel_index(np.nanargmax(self.heatmap), self.heatmap.shape)
        height, width = np.divide(self.image.shape[:2], self.heatmap.shape)
        top, left = best[0] * height - 0.5, best[1] * width - 0.5
        across = [left, left + width, left + width, left, left]
        down = [top, top, top + height, top + height, top]
        ax.plot(across, down, color=_FRAME, linewidth=2)

    def _range(self) -> tuple[float, float]:
        """Return the values at which the overlay is transparent and strongest."""
        values = np.asarray(self.heatmap)
        low = float(np.nanmedian(values)) if self.relative else 0.0
        high = float(np.nanmax(values if self.relative else np.abs(values)))
        # A constant map draws nothing.
        return low, high if high > low else low + 1


def _as_title(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else ", ".join(prompt)
