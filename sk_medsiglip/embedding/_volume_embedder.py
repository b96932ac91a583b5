"""``MedSigLIPVolumeEmbedder``: studies of many slices to rows or bags."""

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
    a slide. Each slice is an image for the embedder, and is stored like any other. The
    result for a study is its pooled row or, with ``pooling=None``, the bag of the rows
    of its slices. Batches of the model run across studies. A study that was embedded
    before is identified by the state of its files, without opening them.

    Parameters
    ----------
    embedder : MedSigLIPEmbedder
        Embedder of single slices. Its ``frame`` must be None. Its ``normalize`` scales
        the row of each slice before pooling; the pooled row is not scaled again.
    n_slices : int or None, default=85
        Number of evenly spaced slices of a study, from the first to the last (with 1,
        the middle one). With None, or if there are fewer, all are used; use None for
        the tiles of a slide. Google's CT example uses 85. Every slice costs one model
        pass.
    pooling : {"mean", "max", "mean+max"}, callable or None, default="mean"
        Function from the rows of slices to one row. "mean+max" concatenates both, which
        doubles the columns. A function is called with the float32 array
        (n_slices, embedding_dim) and returns a 1-D array whose length must not depend
        on ``n_slices``; to be pickled, it must be importable. None keeps all rows: a
        study is then a bag, for estimators that accept
        ``(n_samples, n_instances, embedding_dim)``.
    series : int or None, default=None
        Index of the series in a study that holds several. With None, such a study
        raises an error that lists its series.
    plane : {"axial", "coronal", "sagittal"}, default="axial"
        Plane of the slices of NIfTI volumes. DICOM series are shown as acquired; a
        different plane raises an error, as it does for arrays.
    verbose : int, default=0
        Verbosity. If above 0, a progress bar of studies is shown; if above 1, also one
        of their slices.

    Attributes
    ----------
    embedder_ : MedSigLIPEmbedder
        Fitted clone of ``embedder``.

    See Also
    --------
    MedSigLIPEmbedder : One row per image.
    sk_medsiglip.images.tiles_from_h5 : Tiles of a slide chosen by a tool.
    sk_medsiglip.images.read_study : The slices as the model sees them.

    Notes
    -----
    The limits of grey values are those of the whole series: percentiles (MR with
    ``intensity="auto"``) are taken over all its slices, selected or not, so that one
    slice is not brighter than the next. For this, every slice is decoded once more.

    Apart from the result, memory does not grow with the number of studies: it holds
    some slices at the size of the model, some thousand rows, and two NIfTI volumes.
    Bags take ``4 * n_studies * n_instances * embedding_dim`` bytes, including padding,
    and up to twice that while they are assembled. Bags of 400 studies of 85 slices at
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
        """Check the collection and record the revision of the weights.

        Parameters
        ----------
        X : array-like of shape (n_studies,)
            Studies, as for :meth:`transform`. They are not opened here.
        y : ignored
            Not used, present for API consistency.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If ``X`` is not a collection of studies.
        ModelAccessError, CheckpointError
            If the model is not available.
        """
        _check_frame(self.embedder)
        self.embedder_ = clone(self.embedder).fit(study_rows(X))
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return one row per study or, with ``pooling=None``, one bag.

        Parameters
        ----------
        X : array-like of shape (n_studies,)
            A list, object array, Series or one-column DataFrame. Each item is one
            study:

            - a folder of DICOM files, including sub-folders; or, without a DICOM file,
              a folder with one NIfTI file or with other images;
            - a NIfTI file (``.nii``, ``.nii.gz``), or a multi-frame DICOM or TIFF file;
            - an array (n_slices, H, W) or (n_slices, H, W, channels);
            - a list of files or images (views, photos, slices, regions of a slide): all
              of them are used, and DICOM slices of one series are sorted;
            - one image.

        Returns
        -------
        ndarray of shape (n_studies, n_columns), float32
            Pooled rows. With ``on_error="nan"`` of the embedder, unreadable slices are
            not pooled, and a study without readable slices is a row of NaN.

            With ``pooling=None``, the shape is (n_studies, n_instances, embedding_dim).
            Instances are the slices in the order of :meth:`slice_names`. Their number
            is that of the longest study of the call; shorter ones are padded with rows
            of NaN, which are ignored by estimators of bags, so that the number may
            differ between ``fit`` and ``predict``. With ``on_error="nan"``, an
            unreadable slice is a row of NaN at its place.

        Raises
        ------
        ImageReadError
            If a study or a slice cannot be read. The message gives the row, the slice,
            its source, the reason and a remedy. A folder with several series also
            raises this error, which lists them.
        CheckpointError
            If the weights are damaged, or differ from those at ``fit``.
        ModelAccessError
            If a row is not stored and the model is not available.
        MissingDependencyError
            If nibabel is needed for a NIfTI file and is not installed.
        ValueError
            With ``pooling=None``, if ``set_output`` requests a data frame.

        Warns
        -----
        UnreadableImageWarning
            Once with ``on_error="nan"``, with the number of unreadable images and the
            first of them.
        SkMedSiglipWarning
            Once, if NIfTI volumes that are read look like CT and are not shown as CT.

        Notes
        -----
        Slices of a DICOM series are ordered along the normal of their planes, then by
        InstanceNumber. Without positions, they are ordered by InstanceNumber, then as
        given.
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
        """Return names for the slices of each study, in the order of its instances.

        Parameters
        ----------
        X : array-like of shape (n_studies,)
            Studies, as for :meth:`transform`.

        Returns
        -------
        list of list of str
            ``names[i][j]`` is the name of instance ``j`` of study ``i``: the file of
            the slice, and its place in a file that holds several. Images in memory are
            described by their shape.

        Raises
        ------
        ImageReadError
            If a study cannot be opened, or holds several series.

        Notes
        -----
        The headers of all files are read, but not their pixels. For the images
        themselves, see :func:`~sk_medsiglip.images.read_study`.

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
        """Return names of the output columns; needs neither ``fit`` nor weights.

        Parameters
        ----------
        input_features : ignored
            Not used, present for API consistency.

        Returns
        -------
        ndarray of shape (n_columns,), object
            ``"medsiglipvolumeembedder_mean0"``, ...; or ``"medsiglipvolumeembedder0"``,
            ... if ``pooling`` is a function, or None (for the last axis).
        """
        embedder = self._fitted_embedder()
        facts = find_facts(embedder.model, embedder.revision, embedder.cache)
        return np.array(self._names(facts.embedding_dim), dtype=object)

    def _fitted_embedder(self) -> MedSigLIPEmbedder:
        """Return the fitted embedder, or before ``fit`` the parameter."""
        return self.embedder_ if hasattr(self, "embedder_") else self.embedder

    def _names(self, embedding_dim: int) -> list[str]:
        return pooled_names(self.pooling, embedding_dim, type(self).__name__.lower())


def _check_frame(embedder: MedSigLIPEmbedder) -> None:
    if embedder.frame is not None:
        raise ValueError(
            f"the embedder has frame={embedder.frame!r}, but all frames of a study are "
            "slices. Set frame=None, and limit their number by n_slices."
        )


def _warn_about_unreadable(embedded: EmbeddedStudies) -> None:
    n, is_bags = len(embedded.vectors), embedded.vectors.ndim == 3
    texts = []
    if embedded.failures:
        result = "bags" if is_bags else "rows"
        texts.append(
            f"{len(embedded.failures)} of {n} studies cannot be read and are {result} "
            "of NaN"
        )
    if embedded.left_out:
        n_studies = len({error.row for error in embedded.left_out})
        result = "rows of NaN" if is_bags else "left out"
        texts.append(
            f"unreadable slices are {result}: {len(embedded.left_out)}, in {n_studies} "
            f"of {n} studies"
        )
    errors = [*embedded.failures.values(), *embedded.left_out]
    shown = [str(error) for error in errors[:_NAMED_IN_WARNING]]
    if len(errors) > len(shown):
        shown.append(f"and {len(errors) - len(shown)} more")
    warn_user("; ".join(texts) + ":\n  " + "\n  ".join(shown), UnreadableImageWarning)


def _warn_about_hounsfield(rows: list[int]) -> None:
    shown = ", ".join(map(str, rows[:_NAMED_IN_WARNING]))
    more = ", ..." if len(rows) > _NAMED_IN_WARNING else ""
    warn_user(
        f"The values of rows {shown}{more} {HOUNSFIELD_WARNING}", SkMedSiglipWarning
    )
