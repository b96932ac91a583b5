"""``ExploreSession``: label, train and judge, with a test set that nobody has seen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sk_medsiglip.embedding import MedSigLIPEmbedder
from sk_medsiglip.exceptions import SessionError
from sk_medsiglip.explore._exports import save_classifier, write_samples, write_table
from sk_medsiglip.explore._judging import check_before_look, judge_locked, read_truth
from sk_medsiglip.explore._learning import PROMPTS_ALONE
from sk_medsiglip.explore._looking import Looking
from sk_medsiglip.explore._task import make_task
from sk_medsiglip.explore._training import Labelled
from sk_medsiglip.heads import LinearProbe


class ExploreSession(Looking):
    """Label images, train on them, and judge the result on images kept apart.

    A session begins with embeddings and perhaps prompts. :meth:`queue` says which
    images to label next, :meth:`refit` trains on the labels so far, and :meth:`judge`
    evaluates once, on a locked test set that was chosen before the first label. Labels
    are kept in a file that survives a crash. No browser is needed.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Embeddings, held as they are; an array may be memory-mapped. Rows of NaN, images
        that could not be read, can be labelled but are not trained on.
    label : str or list of str, default=None
        Name of the column to label, or names of several findings. By default, the
        findings of the prompts, or "label".
    classes : list, default=None
        Classes, of which one is right for each image. By default, those of the prompts
        if these are of classes; else images are labelled with "yes" and "no".
    prompts : dict or PromptSet, default=None
        Prompts as :class:`~sk_medsiglip.ZeroShotClassifier` takes them: ``{class:
        texts}``, or ``{finding: {"positive": texts, "negative": texts}}`` with an entry
        for each column.
    images : sequence of n_samples objects, default=None
        Images or their paths, by row number.
    frame : DataFrame of n_samples rows, default=None
        Metadata. Columns with the names of labels are taken as labels there are
        already: 1 or "yes", 0 or "no", -1 or "unsure", or classes.
    groups : array-like of shape (n_samples,), default=None
        Patients. Folds, intervals and the locked set keep them whole.
    locked : float, array of bool or DataFrame, default=None
        The test set: a share of the rows, drawn by patient; a mask; or a table that
        shares a column with ``frame``, such as paths. Locked
        rows have no scores and cannot be labelled until :meth:`end`. The choice is
        stored in the label file, and holds when the session is opened again.
    labels_path : path-like, default=None
        File of the labels, made if it does not exist. Several sessions may share one.
        None keeps labels in memory only.
    model : str, path-like or MedSigLIPEmbedder, default="google/medsiglip-448"
        The embedder that made ``X``, or the name of its model. Its text tower encodes
        the prompts, and it becomes part of the saved classifier.
    random_state : int, default=0
        Seed of the random number generator.
    user : str, default=None
        Author of the labels, as the label file names them. By default, the name of the
        account.

    Attributes
    ----------
    locked : ndarray of shape (n_samples,), bool
        The locked rows.
    classifier_ : estimator or None
        The classifier of the last :meth:`refit`, on rows; None before it.
    stage_ : str or None
        Origin of the current scores: "prompts", "PromptProbe" or "LinearProbe".
    figures_ : DataFrame
        Figures of every refit so far, in the columns that :meth:`refit` returns.

    Raises
    ------
    SessionError
        If the label file belongs to other images or another question.
    ValueError
        If lengths or parameters do not fit each other.

    See Also
    --------
    sk_medsiglip.heads.PromptProbe : The classifier while labels are few.
    sk_medsiglip.audit.audit : Faults of labels that are there already.

    Notes
    -----
    The label file has one JSON object a line, with time and author, and lines are only
    ever appended. Each is on the disk before the call returns. A last line that a crash
    has cut off is passed over, with a warning.

    Memory: one number or a few for each row, beside ``X``. For 100,000 rows of 1152, a
    prompt takes about 40 ms.

    Rows that :meth:`queue` chooses are harder than the others, so figures on them are
    not those of a random sample. Only :meth:`judge` gives an honest figure.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.explore import ExploreSession
    >>> phantoms = make_chest_phantoms(120, random_state=0)
    >>> effusion = phantoms.target[:, 1]
    >>> session = ExploreSession(
    ...     MedSigLIPEmbedder("demo").transform(phantoms.images), model="demo",
    ...     prompts={"effusion": {"positive": "pleural effusion",
    ...                           "negative": "no pleural effusion"}},
    ...     groups=phantoms.groups, locked=0.25)
    >>> for row in session.queue(16):  # in place of a person who looks at the image
    ...     session.label(row, "effusion", "yes" if effusion[row] else "no")
    >>> session.refit()[["stage", "label", "n"]]
             stage     label   n
    0  PromptProbe  effusion  16
    >>> figures = session.judge(truth=effusion[session.locked])
    >>> session.n_looks
    1
    """

    def __init__(
        self,
        X: ArrayLike,
        *,
        label: str | Sequence[str] | None = None,
        classes: Sequence[Any] | None = None,
        prompts: Mapping[Any, Any] | None = None,
        images: Sequence[Any] | None = None,
        frame: pd.DataFrame | None = None,
        groups: ArrayLike | None = None,
        locked: float | ArrayLike | pd.DataFrame | None = None,
        labels_path: str | os.PathLike[str] | None = None,
        model: str | os.PathLike[str] | MedSigLIPEmbedder = "google/medsiglip-448",
        random_state: int = 0,
        user: str | None = None,
    ) -> None:
        is_embedder = isinstance(model, MedSigLIPEmbedder)
        self.embedder: Any = model if is_embedder else MedSigLIPEmbedder(model)
        task = make_task(label, classes, prompts)
        super().__init__(
            X, task, images, frame, groups, locked, labels_path, random_state, user
        )
        self.figures_ = self._last_figures = pd.DataFrame()
        if prompts is not None:
            self.use_prompts(prompts)

    def end(self) -> None:
        """End the training, so that locked rows can be labelled.

        They are labelled without scores: :meth:`queue` offers them, :meth:`label` takes
        them, and the classifier learns nothing any more. This cannot be undone, nor by
        opening the session again.

        Raises
        ------
        SessionError
            If there is nothing to train on.
        """
        self.refresh()
        if not self.is_ended:
            self._train()
            self._append("end")
        self._train()  # on what others have labelled until then, too

    def judge(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        truth: Any = None,
        **report: Any,
    ) -> pd.DataFrame:
        """End the training, and evaluate the classifier on the locked rows.

        Every call is a look at the test set, and the label file counts it. Locked rows
        have scores afterwards.

        Parameters
        ----------
        folder : path-like, default=None
            Folder to write to: ``report.html``, and all that :meth:`save` writes.
        truth : array-like or DataFrame, default=None
            Labels of the locked rows, in their order. By default, those of ``frame``,
            and those given after :meth:`end`.
        **report
            Further parameters of :func:`~sk_medsiglip.evaluation.write_report`.

        Returns
        -------
        DataFrame
            Figures as :func:`~sk_medsiglip.evaluation.evaluate` returns them, of the
            classifier and of the prompts alone.

        Raises
        ------
        SessionError
            If nothing is locked, no locked row has a label, or there is nothing to
            train on.
        MissingDependencyError
            If matplotlib or skops is not installed, and ``folder`` is given.
        """
        self.refresh()
        rows = np.flatnonzero(self.locked)
        if not rows.size:
            raise SessionError(
                "no rows were locked when the session began, so there is nothing to "
                "judge on: begin another with locked=0.2."
            )
        codes = read_truth(truth, self._task, self._codes[rows])
        groups = None if self.groups is None else self.groups[rows]
        locked = Labelled(self._task, self.X[rows], codes, groups)
        locked = locked.keep(self._lengths[rows] > 0)
        self._train()
        check_before_look(
            locked.known(self._answered), self.classifier_, report, folder is not None
        )
        self.end()
        self._append("look")
        self._score_again()  # locked rows too
        columns = self._answered
        test = locked.known(columns)
        named = {str(self.stage_): self.classifier_}
        if self._prompts is not None and self.stage_ != PROMPTS_ALONE:
            findings = self._findings(columns)
            named[PROMPTS_ALONE] = self._prompts.classifier(findings)
        learned = self._labelled(self._labelled_rows()).known(columns)
        if folder is not None:
            self.save(folder)
        return judge_locked(
            named, test, learned, columns,
            folder=None if folder is None else Path(folder),
            embedder=self.embedder,
            n_left_out=len(rows) - len(test.X),
            n_looks=self.n_looks,
            report=report,
        )  # fmt: skip

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the labels, the classifier and the figures so far.

        Parameters
        ----------
        folder : path-like
            Folder, made if it does not exist. ``labels.csv`` holds ``frame`` and the
            labels, of findings 1, 0, -1 for unsure, and blank; ``classifier.skops`` is
            a pipeline from images to labels, as the last refit made it; ``figures.csv``
            holds :attr:`figures_`. Files of these names are replaced.

        Raises
        ------
        MissingDependencyError
            If skops is not installed.
        """
        self.refresh()
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        write_table(target / "labels.csv", self._table(self._task.numbers(self._shown)))
        if len(self.figures_):
            write_table(target / "figures.csv", self.figures_)
        if self.classifier_ is None:
            return
        texts = None
        if self._prompts is not None and not isinstance(self.classifier_, LinearProbe):
            texts = self._prompts.texts_of(self._findings(self._answered))
        file = target / "classifier.skops"
        save_classifier(file, self.embedder, self.classifier_, texts)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write labels, scores and the map for other programs.

        Parameters
        ----------
        path : path-like
            File whose ending names the format: ``.parquet``, which
            ``embedding-atlas --x projection_x --y projection_y`` shows; ``.json``, a
            list of samples for ``fiftyone.Sample.from_dict``, which needs paths as
            ``images``; or ``.csv``.

        Raises
        ------
        MissingDependencyError
            If pyarrow is not installed, for Parquet.
        ValueError
            If the ending is another one.
        """
        self.refresh()
        file = Path(path)
        if file.suffix.lower() == ".json":
            if self.paths is None:
                raise ValueError(
                    "samples for FiftyOne need images=, the paths of the images."
                )
            paths = [os.path.abspath(one) for one in self.paths]
            write_samples(file, paths, self.labels, self.scores, self.locked)
            return
        table = self._table(self.labels).assign(
            **{f"score_{name}": values for name, values in self.scores.items()},
            projection_x=self.points[:, 0],
            projection_y=self.points[:, 1],
        )
        write_table(file, table)

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "an ExploreSession cannot be saved or copied, since its labels are in the "
            "label file, which other sessions may share. Write the classifier with "
            "save(folder); to continue, open a session with the same labels_path=."
        )

    @property
    def _answered(self) -> list[int]:
        """Columns that the classifier answers."""
        return list(self._trained) or list(range(len(self._task.columns)))

    def _table(self, labels: pd.DataFrame) -> pd.DataFrame:
        """Return ``frame`` with labels, row numbers, paths, and which are locked."""
        own = pd.DataFrame() if self.frame is None else self.frame
        added = pd.DataFrame({"row": np.arange(len(self.X)), "locked": self.locked})
        if self.paths is not None:
            added.insert(1, "image", self.paths)
        # A table that was saved before holds these columns already.
        taken = [name for name in own if name in labels or name in added]
        return pd.concat([own.drop(columns=taken), added, labels], axis=1)
