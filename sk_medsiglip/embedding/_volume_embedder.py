"""``MedSigLIPVolumeEmbedder``: studies of many slices in, rows or bags out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from sk_medsiglip._validation import Integral, Interval, StrOptions, _fit_context
from sk_medsiglip._warning import warn_user
from sk_medsiglip.embedding._bag_output import refuse_data_frames
from sk_medsiglip.embedding._embedder import Stateless
from sk_medsiglip.embedding._image_embedder import MedSigLIPEmbedder
from sk_medsiglip.embedding._model_facts import find_facts
from sk_medsiglip.embedding._pooling import (
    NAMED_POOLINGS,
    Pooling,
    pool,
    pooled_names,
)
from sk_medsiglip.embedding._volume_work import EmbeddedStudies, VolumeWork
from sk_medsiglip.exceptions import (
    ImageReadError,
    SkMedSiglipWarning,
    UnreadableImageWarning,
)
from sk_medsiglip.images import (
    HOUNSFIELD_WARNING,
    PLANES,
    describe,
    open_study,
    study_parts,
    study_rows,
    validate_intensity,
)

_NAMED_IN_WARNING = 5


class MedSigLIPVolumeEmbedder(Stateless):
    """Turn studies of many slices into one row or one bag each.

    A study is a CT or MR series, several views, photos of one lesion, or the tiles of
    a slide. Each slice is an image for the embedder, kept on disk as any other. A
    study becomes the pool of its slices' rows or, with ``pooling=None``, the bag of
    them. Batches of the model run across studies, and a study that was embedded
    before is known by the state of its files: none is opened.

    Parameters
    ----------
    embedder : MedSigLIPEmbedder
        Embedder of single slices. Its model, intensity, threads, store and
        ``on_error`` are used; its ``frame`` must be None. Its ``normalize`` scales the
        row of each slice, before pooling; the pooled row is not scaled again.
    n_slices : int or None, default=85
        Number of slices to take of a study, spread evenly from the first to the last
        (with 1, the middle one). With None, or if there are fewer, all are taken;
        tiles of a slide need None. Google's CT example takes 85. Time grows with it:
        every slice is one image for the model.
    pooling : {"mean", "max", "mean+max"}, callable or None, default="mean"
        Function from the rows of slices to one row. "mean+max" puts both next to each
        other, twice the columns. A function of your own gets the float32 array
        (n_slices, embedding_dim) and returns a 1-D array whose length must not depend
        on ``n_slices``; to be pickled, it must be importable. None keeps all rows: a
        study is a bag, for estimators that take
        ``(n_samples, n_instances, embedding_dim)``.
    series : int or None, default=None
        Index of the series in a study that holds several. With None, such a study is
        an error that lists them.
    plane : {"axial", "coronal", "sagittal"}, default="axial"
        Plane in which NIfTI volumes are cut. DICOM series are shown as they were
        taken; another plane than theirs is an error, as it is for arrays.
    verbose : int, default=0
        Verbosity. Above 0, a progress bar of studies is shown; above 1, also one of
        their slices.

    Attributes
    ----------
    embedder_ : MedSigLIPEmbedder
        Fitted clone of ``embedder``.

    See Also
    --------
    MedSigLIPEmbedder : One row an image.
    sk_medsiglip.images.tiles_from_h5 : Tiles that a tool has chosen on a slide.
    sk_medsiglip.images.read_study : The slices as the model sees them.

    Notes
    -----
    Grey values of a series are judged together: percentiles (MR under
    ``intensity="auto"``) are those of all its slices, taken or not, so that one slice
    is not brighter than the next. For that, every slice is decoded once more.

    Apart from the result, memory does not grow with the number of studies: it holds
    some slices at the model's size, some thousand rows, and two NIfTI volumes. Bags
    take ``4 * n_studies * n_instances * embedding_dim`` bytes, padding included, and
    up to twice that while they are put together. Bags of 400 studies of 85 slices at
    width 1152 take 157 MB.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPVolumeEmbedder
    >>> volumes = MedSigLIPVolumeEmbedder(MedSigLIPEmbedder("demo"), n_slices=4)
    >>> rng = np.random.default_rng(0)
    >>> short, long = rng.random((3, 64, 64)), rng.random((9, 64, 64))
    >>> volumes.fit_transform([short, long]).shape
    (2, 192)
    >>> bags = volumes.set_params(pooling=None).fit_transform([short, long])
    >>> bags.shape
    (2, 4, 192)
    >>> np.isnan(bags).all(axis=2).sum(axis=1)  # rows of padding in each bag
    array([1, 0])
    """

    _parameter_constraints: dict[str, Any] = {
        "embedder": [MedSigLIPEmbedder],
        "n_slices": [Interval(Integral, 1, None, closed="left"), None],
        "pooling": [StrOptions(set(NAMED_POOLINGS)), callable, None],
        "series": [Interval(Integral, 0, None, closed="left"), None],
        "plane": [StrOptions(set(PLANES))],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        embedder: MedSigLIPEmbedder,
        *,
        n_slices: int | None = 85,
        pooling: Pooling | None = "mean",
        series: int | None = None,
        plane: str = "axial",
        verbose: int | bool = 0,
    ) -> None:
        self.embedder = embedder
        self.n_slices = n_slices
        self.pooling = pooling
        self.series = series
        self.plane = plane
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Check the collection and record which weights there are; nothing is learned.

        Parameters
        ----------
        X : array-like of shape (n_studies,)
            Studies, as for :meth:`transform`. None is opened here.
        y : ignored
            For pipelines.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If ``X`` is not a collection of studies.
        ModelAccessError, CheckpointError
            If the model cannot be had.
        """
        _check_frame(self.embedder)
        self.embedder_ = clone(self.embedder).fit(study_rows(X))
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return one row a study or, with ``pooling=None``, one bag.

        Parameters
        ----------
        X : array-like of shape (n_studies,)
            A list, object array, Series or one-column DataFrame. Each item is one
            study:

            - a folder of DICOM files, also in sub-folders; without any DICOM file, of
              one NIfTI file or of pictures;
            - a NIfTI file (``.nii``, ``.nii.gz``), or a multi-frame DICOM or TIFF file;
            - an array (n_slices, H, W) or (n_slices, H, W, channels);
            - a list of files or images (views, photos, slices, regions of a slide): all
              of them are used, and DICOM slices of one series are put in order;
            - one image.

        Returns
        -------
        ndarray of shape (n_studies, n_columns), float32
            Under ``on_error="nan"`` of the embedder, slices that cannot be read are
            left out of the pool; a study of which none can is a row of NaN.

            With ``pooling=None`` the shape is (n_studies, n_instances, embedding_dim).
            Instances are the slices in the order of :meth:`slice_names`. Their number
            is that of the longest study of the call; shorter ones end in rows of NaN,
            which estimators of bags pass over, so that another number at ``predict``
            than at ``fit`` is no obstacle. Under ``on_error="nan"``, a slice that
            cannot be read is a row of NaN at its place.

        Raises
        ------
        ImageReadError
            If a study or a slice cannot be read: names the row, the slice, its
            source, what is wrong and what to do. A folder with several series is
            such an error, and lists them.
        CheckpointError
            If the weights are others than at ``fit``, or damaged.
        ModelAccessError
            If a row is not stored and the model cannot be had.
        MissingDependencyError
            If a NIfTI file is met and nibabel is not installed.
        ValueError
            With ``pooling=None``, if ``set_output`` asks for a data frame.

        Warns
        -----
        UnreadableImageWarning
            Under ``on_error="nan"``: once, with the number and the first ones.
        SkMedSiglipWarning
            If NIfTI volumes look like CT and are not shown as CT; once, and only
            where they are read.

        Notes
        -----
        Slices of a DICOM series are ordered along the normal of their planes, then by
        InstanceNumber; without positions by InstanceNumber, then as given.
        """
        self._validate_params()
        if self.pooling is None:
            refuse_data_frames(self, 'pooling="mean"')
        embedder = self._fitted_embedder()
        embedder._validate_params()
        validate_intensity(embedder.intensity)
        _check_frame(embedder)
        studies = study_rows(X)
        images = embedder._image_work()
        work = VolumeWork(
            replace(images, verbose=max(0, int(self.verbose) - 1)),
            finish=embedder._finish,
            pool=None if self.pooling is None else partial(pool, self.pooling),
            n_columns=len(self._names(images.rows.facts.embedding_dim)),
            n_slices=self.n_slices,
            plane=self.plane,
            series=self.series,
            max_pixels=embedder.max_pixels,
            verbose=int(self.verbose),
        )
        embedded = work.embed(studies)
        if embedded.failures or embedded.left_out:
            _warn_about_unreadable(embedded)
        if embedded.like_hounsfield and embedder.intensity == "auto":
            _warn_about_hounsfield(sorted(embedded.like_hounsfield))
        return embedded.vectors

    def slice_names(self, X: ArrayLike) -> list[list[str]]:
        """Name the slices of each study, in the order of its instances.

        Parameters
        ----------
        X : array-like of shape (n_studies,)
            Studies, as for :meth:`transform`.

        Returns
        -------
        list of list of str
            The file of a slice, and its place in it where the file holds several:
            ``names[i][j]`` is that of instance ``j`` of study ``i``. Images in memory
            are described by their shape.

        Raises
        ------
        ImageReadError
            If a study cannot be opened, or holds several series.

        Notes
        -----
        Reads the headers of all files, and no pixels. For the images themselves, see
        :func:`~sk_medsiglip.images.read_study`.

        Examples
        --------
        >>> import numpy as np
        >>> from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPVolumeEmbedder
        >>> volumes = MedSigLIPVolumeEmbedder(MedSigLIPEmbedder("demo"), n_slices=2)
        >>> volumes.slice_names([np.zeros((30, 8, 6), np.uint8)])[0]
        ['slice 0, array of shape (8, 6) and type uint8',
         'slice 29, array of shape (8, 6) and type uint8']
        """
        self._validate_params()
        max_pixels = self._fitted_embedder().max_pixels
        names = []
        for row, item in enumerate(study_rows(X)):
            try:
                study = open_study(
                    item,
                    study_parts(item),
                    plane=self.plane,
                    series=self.series,
                    max_pixels=max_pixels,
                )
            except ImageReadError as error:
                raise error.at_row(row) from None
            names.append([describe(source) for source in study.take(self.n_slices)])
        return names

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the columns of the output; neither ``fit`` nor weights are needed.

        Parameters
        ----------
        input_features : ignored
            Studies have no columns.

        Returns
        -------
        ndarray of shape (n_columns,), object
            ``"medsiglipvolumeembedder_mean0"``, ...; under a function, and with
            ``pooling=None`` for the last axis, ``"medsiglipvolumeembedder0"``, ...
        """
        embedder = self._fitted_embedder()
        facts = find_facts(embedder.model, embedder.revision, embedder.cache)
        return np.array(self._names(facts.embedding_dim), dtype=object)

    def _fitted_embedder(self) -> MedSigLIPEmbedder:
        """Return what ``fit`` made; without it, what was given does as well."""
        return self.embedder_ if hasattr(self, "embedder_") else self.embedder

    def _names(self, embedding_dim: int) -> list[str]:
        return pooled_names(self.pooling, embedding_dim, type(self).__name__.lower())


def _check_frame(embedder: MedSigLIPEmbedder) -> None:
    if embedder.frame is not None:
        raise ValueError(
            f"the embedder has frame={embedder.frame!r}, and of a study all frames are "
            "slices. Set frame=None, and choose how many by n_slices."
        )


def _warn_about_unreadable(embedded: EmbeddedStudies) -> None:
    n, is_bags = len(embedded.vectors), embedded.vectors.ndim == 3
    texts = []
    if embedded.failures:
        made = "bags" if is_bags else "rows"
        texts.append(
            f"{len(embedded.failures)} of {n} studies cannot be read and are {made} of "
            "NaN"
        )
    if embedded.left_out:
        n_studies = len({error.row for error in embedded.left_out})
        made = "rows of NaN" if is_bags else "left out"
        texts.append(
            f"slices that cannot be read and are {made}: {len(embedded.left_out)}, "
            f"of {n_studies} of {n} studies"
        )
    errors = [*embedded.failures.values(), *embedded.left_out]
    shown = [str(error) for error in errors[:_NAMED_IN_WARNING]]
    if len(errors) > len(shown):
        shown.append(f"and {len(errors) - len(shown)} more")
    warn_user("; ".join(texts) + ":\n  " + "\n  ".join(shown), UnreadableImageWarning)


def _warn_about_hounsfield(rows: list[int]) -> None:
    shown = ", ".join(map(str, rows[:_NAMED_IN_WARNING]))
    more = ", ..." if len(rows) > _NAMED_IN_WARNING else ""
    warn_user(f"Of rows {shown}{more} {HOUNSFIELD_WARNING}", SkMedSiglipWarning)
