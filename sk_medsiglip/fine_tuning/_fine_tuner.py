"""``MedSigLIPFineTuner``: images with texts or classes in, a better encoder out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import ClassifierTags, Tags
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._optional import import_optional
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._validation import (
    Integral,
    Interval,
    Real,
    StrOptions,
    _fit_context,
)
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import MedSigLIPEmbedder, plain_rows
from sk_medsiglip.encoder import Checkpoint, choose_device, load_image_processor
from sk_medsiglip.fine_tuning._adapter_files import Tuned
from sk_medsiglip.fine_tuning._answers import ClassAnswers
from sk_medsiglip.fine_tuning._augmentation import Augmentation
from sk_medsiglip.fine_tuning._choices import check_settings
from sk_medsiglip.fine_tuning._save import SavesFolder
from sk_medsiglip.images import (
    CTWindows,
    Percentiles,
    Window,
    pad_to_square,
    read_image,
    read_resized,
    validate_intensity,
)

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._training import Outcome

__all__ = ["MedSigLIPFineTuner"]


class MedSigLIPFineTuner(
    ClassAnswers,
    SavesFolder,
    VersionedPickle,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Fine-tune MedSigLIP on images with texts, or with classes.

    Needs ``pip install "sk-medsiglip[finetune]"``. What comes out is an encoder like
    any other: ``transform`` gives its embeddings, ``as_embedder`` an embedder for
    pipelines, ``save`` a folder that every ``model=`` of this package takes, ``merge``
    one that plain transformers opens.

    Parameters
    ----------
    model : str or path-like, default="google/medsiglip-448"
        A repository on the Hugging Face hub, a folder of a checkpoint or of an adapter,
        or ``"demo"``.
    revision : str or None, default=None
        Commit, branch or tag of a repository.
    objective : {"contrastive", "classification"}, default="contrastive"
        "contrastive" brings images and their texts together, by the sigmoid loss that
        SigLIP was trained with [1]_. "classification" puts a linear layer on the image
        tower and trains by cross-entropy; several labels may have blanks.
    prompts : mapping or None, default=None
        For "contrastive" with labels instead of captions: what each class, or each
        finding present and absent, looks like in words; as
        :class:`~sk_medsiglip.ZeroShotClassifier` takes them. An image shows one of its
        labels' prompts in each epoch, and of findings those that are present at least
        every second time.
    templates : str, sequence of str, mapping or None, default=None
        Texts with one ``{}`` each that prompts are put into.
    same_caption : {"positive", "ignore", "negative"}, default="positive"
        What another row's text is to an image of which it is true as well: a pair too
        (several positives), neither pair nor counter-example, or, as in the paper, a
        counter-example. Texts of the same picture in another row count as true of it.
    keep : mapping, sequence of str or None, default=None
        What must not be forgotten: prompts, as
        :class:`~sk_medsiglip.ZeroShotClassifier` takes them, or texts. The scores that
        they give the training images are measured before the first step, and changes
        of these are added to the loss [3]_; no labels are needed. A step looks at
        ``batch_size`` of the texts at most, drawn anew each time.
    keep_weight : float, default=1.0
        How much it counts. At 1 each score that has changed by as much as it differs
        between images adds 1 to the loss. Not part of ``validation_loss``, by which
        ``validation_fraction`` chooses the weights.
    train : {"lora", "last_blocks", "head", "full"}, default="lora"
        What is trained: low-rank matrices beside each layer [2]_; the last ``n_blocks``
        layers and what follows them; the attention pooling and the text projection
        (for "classification" the new layer alone, on embeddings that are computed
        once); everything. Only the result of "lora" fits into a pickle.
    towers : {"both", "image", "text"}, default="both"
        Of "contrastive". What the other tower gives is computed once.
    lora_rank : int, default=8
        Columns of the added matrices. At 8 and all layers an adapter of MedSigLIP is 35
        MB, of its attention 16 MB.
    lora_alpha : float or None, default=None
        The matrices count ``lora_alpha / lora_rank``; None is twice the rank.
    lora_dropout : float, default=0.0
        Share of their inputs that is left out in training.
    lora_layers : {"attention", "all"}, default="attention"
        Which linear layers of a block get them: the four of its attention, or those of
        its perceptron too.
    n_blocks : int, default=2
        Of "last_blocks".
    epochs : int, default=10
        Passes through the training rows.
    max_steps : int or None, default=None
        Steps of the optimizer, instead of epochs.
    batch_size : int, default=16
        Images in one pass of a process. Under a launcher of several processes a text
        is compared with the images of all of them.
    accumulate : int, default=1
        Passes in a step. Rows of different passes are not compared.
    learning_rate : float or "auto", default="auto"
        Of the top layer. "auto" is 1e-3 for "lora" and "head", 5e-5 for "last_blocks",
        1e-5 for "full". A new classifier on a tower that is trained moves at 1e-3 at
        least.
    schedule : {"cosine", "linear", "constant"}, default="cosine"
        How it falls to 0 after the warm-up.
    warmup : float, default=0.05
        Share of the steps in which it rises.
    weight_decay : float, default=0.01
        Of matrices.
    layer_decay : float, default=1.0
        Factor on the learning rate for each layer further down; 0.9 keeps early layers
        of "full" and "last_blocks" nearer to what they were.
    gradient_checkpointing : bool, default=False
        Compute layers again on the way back instead of keeping what they gave: a third
        slower, a fraction of the memory.
    bf16 : bool or "auto", default="auto"
        Products in bfloat16. "auto" on a GPU that has it.
    pos_weight : "balanced", float, array-like or None, default=None
        Of "classification": factor on the loss of positives, of each label; for three
        and more classes, of each class. "balanced" lets rare ones count as much.
    augment : "auto", Augmentation or None, default="auto"
        Changes of training images. "auto" is ``Augmentation()``, small shifts and tones
        and no mirror, where the image tower is trained; else none.
    validation_fraction : float or None, default=None
        Share of the rows that is left out of training and judged, by whole patients.
        The weights with the best validation loss are kept.
    patience : int or None, default=3
        Looks at the validation split without a better loss after which training stops.
    checkpoint_every : int or None, default=None
        Steps between two checkpoints, and two looks at the validation split. None is
        once an epoch, and 50 times a run at most.
    run_dir : str, path-like or None, default=None
        Folder of the run's checkpoints, which it keeps. None is one beside the store of
        embeddings, named by settings and data, that is deleted when the run is done.
        Processes on several machines must all see it.
    resume : bool, default=False
        Go on from the last checkpoint of this very run, or start where there is none.
        The result is that of an unbroken run. False starts anew.
    resize, pad, intensity, frame
        How images become pixels; see :class:`~sk_medsiglip.MedSigLIPEmbedder`.
    max_pixels : int, default=178956970
        Larger images are refused before they are decoded.
    n_jobs : int or None, default=None
        Threads that read images.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        Where. One process has one GPU: choose it with ``CUDA_VISIBLE_DEVICES``, use
        several with ``torchrun --nproc-per-node`` or ``accelerate launch``.
    cache : bool, str, path-like or EmbeddingCache, default=True
        Store of embeddings; adapters and runs lie beside it.
    random_state : int, RandomState or None, default=None
        Of matrices, order, changes and split. Runs with the same int are equal.
    verbose : int, default=0
        Over 0 shows progress bars.

    Attributes
    ----------
    history_ : DataFrame
        One row a step: ``step``, ``epoch``, ``loss``, ``learning_rate``,
        ``gradient_norm``, and at looks at the validation split ``validation_loss`` and,
        for classes, ``validation_auc``.
    base_revision_ : str
        Commit or folder digest of the checkpoint that was tuned.
    fingerprint_ : str
        Of the tuned encoder: of adapter and base. Embeddings are stored under it.
    n_steps_, best_step_ : int
        Steps done, and the step whose weights were kept.
    n_trained_ : int
        Trained values.
    n_train_ : int
        Images that were trained on.
    validation_rows_ : ndarray of int
        Rows of ``X`` that were left out of training.
    classes_ : ndarray
        Of "classification": sorted labels, or one row ``[0, 1]`` a label.
    coef_, intercept_ : ndarray
        Of "classification": the layer on the tuned embeddings, brought to the length
        ``sqrt(width)``.

    See Also
    --------
    sk_medsiglip.LinearProbe : A head on the embeddings as they are; try it first.

    Notes
    -----
    Images are read and resized once, before the first step: in memory up to 1 GiB
    (1,783 images of MedSigLIP), beyond that in a file beside the run, 602 kB an image.

    On 2 CPU cores the demonstration checkpoint trains about 100 images a second. A step
    costs little more than its forward and backward passes (``docs/benchmarks.md``).
    MedSigLIP wants a GPU; on these cores a fit of one low-rank step takes half a minute
    and 5 GiB with one image and its tower, 50 s and 8 GiB with two images, both towers
    and ``gradient_checkpointing``, loading included.

    A pickle holds the adapter and the name and revision of the base, never the base's
    weights. The tuned encoder lies in a folder of adapters beside the store, which a
    pickle makes again where it is opened.

    Weights that were tuned from MedSigLIP stay under its terms; ``save`` and ``merge``
    write the NOTICE that these ask for, and a model card, ``README.md``: base, size of
    the data, settings, losses, licence and limits. Not a medical device.

    References
    ----------
    .. [1] Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
    .. [2] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    .. [3] After Li and Hoiem, "Learning without Forgetting", IEEE TPAMI 40, 2018; there
       classes are kept, here scores by texts.

    Examples
    --------
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.fine_tuning import MedSigLIPFineTuner
    >>> phantoms = make_chest_phantoms(16, random_state=0)
    >>> tuner = MedSigLIPFineTuner("demo", max_steps=2, batch_size=8, random_state=0)
    >>> tuner.fit(list(phantoms.images), phantoms.captions).history_["step"].tolist()
    [1, 2]
    >>> tuner.transform(list(phantoms.images)).shape
    (16, 192)
    """

    _parameter_constraints: dict[str, Any] = {
        "model": [str, os.PathLike],
        "revision": [str, None],
        "objective": [StrOptions({"contrastive", "classification"})],
        "prompts": [Mapping, None],
        "templates": [str, Sequence, Mapping, np.ndarray, None],
        "same_caption": [StrOptions({"positive", "ignore", "negative"})],
        "keep": [Mapping, Sequence, np.ndarray, None],
        "keep_weight": [Interval(Real, 0, None, closed="neither")],
        "train": [StrOptions({"lora", "last_blocks", "head", "full"})],
        "towers": [StrOptions({"both", "image", "text"})],
        "lora_rank": [Interval(Integral, 1, None, closed="left")],
        "lora_alpha": [Interval(Real, 0, None, closed="neither"), None],
        "lora_dropout": [Interval(Real, 0, 1, closed="left")],
        "lora_layers": [StrOptions({"attention", "all"})],
        "n_blocks": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "max_steps": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "accumulate": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
        ],
        "schedule": [StrOptions({"cosine", "linear", "constant"})],
        "warmup": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "layer_decay": [Interval(Real, 0, 1, closed="right")],
        "gradient_checkpointing": ["boolean"],
        "bf16": ["boolean", StrOptions({"auto"})],
        "pos_weight": [
            StrOptions({"balanced"}),
            Interval(Real, 0, None, closed="neither"),
            "array-like",
            None,
        ],
        "augment": [StrOptions({"auto"}), Augmentation, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "patience": [Interval(Integral, 1, None, closed="left"), None],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left"), None],
        "run_dir": [str, os.PathLike, None],
        "resume": ["boolean"],
        "resize": [StrOptions({"medsiglip", "processor"})],
        "pad": ["boolean"],
        "intensity": [str, Window, CTWindows, Percentiles],
        "frame": [Integral, StrOptions({"middle"}), None],
        "max_pixels": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "device": [StrOptions({"auto", "cpu", "cuda", "mps"})],
        "cache": ["boolean", str, os.PathLike, EmbeddingCache],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        *,
        revision: str | None = None,
        objective: str = "contrastive",
        prompts: Mapping[Any, Any] | None = None,
        templates: str | Sequence[str] | Mapping[Any, Any] | None = None,
        same_caption: str = "positive",
        keep: Mapping[Any, Any] | Sequence[str] | None = None,
        keep_weight: float = 1.0,
        train: str = "lora",
        towers: str = "both",
        lora_rank: int = 8,
        lora_alpha: float | None = None,
        lora_dropout: float = 0.0,
        lora_layers: str = "attention",
        n_blocks: int = 2,
        epochs: int = 10,
        max_steps: int | None = None,
        batch_size: int = 16,
        accumulate: int = 1,
        learning_rate: float | str = "auto",
        schedule: str = "cosine",
        warmup: float = 0.05,
        weight_decay: float = 0.01,
        layer_decay: float = 1.0,
        gradient_checkpointing: bool = False,
        bf16: bool | str = "auto",
        pos_weight: Any = None,
        augment: str | Augmentation | None = "auto",
        validation_fraction: float | None = None,
        patience: int | None = 3,
        checkpoint_every: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
        resize: str = "medsiglip",
        pad: bool = False,
        intensity: str | Window | CTWindows | Percentiles = "auto",
        frame: int | str | None = None,
        max_pixels: int = 178_956_970,
        n_jobs: int | None = None,
        device: str = "auto",
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.model = model
        self.revision = revision
        self.objective = objective
        self.prompts = prompts
        self.templates = templates
        self.same_caption = same_caption
        self.keep = keep
        self.keep_weight = keep_weight
        self.train = train
        self.towers = towers
        self.lora_rank = lora_rank
        self.lora_alpha = lora_alpha
        self.lora_dropout = lora_dropout
        self.lora_layers = lora_layers
        self.n_blocks = n_blocks
        self.epochs = epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay
        self.gradient_checkpointing = gradient_checkpointing
        self.bf16 = bf16
        self.pos_weight = pos_weight
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.checkpoint_every = checkpoint_every
        self.run_dir = run_dir
        self.resume = resume
        self.resize = resize
        self.pad = pad
        self.intensity = intensity
        self.frame = frame
        self.max_pixels = max_pixels
        self.n_jobs = n_jobs
        self.device = device
        self.cache = cache
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike, y: Any = None, *, groups: ArrayLike | None = None
    ) -> Self:
        """Train.

        Parameters
        ----------
        X : array-like of shape (n_samples,), (n_samples, H, W) or (n_samples, H, W, C)
            Images, as :class:`~sk_medsiglip.MedSigLIPEmbedder` takes them.
        y : array-like
            For "contrastive" a caption for each image, or a list of captions that are
            all true of it; with ``prompts`` labels. For "classification" labels: of
            classes, or a table of 1, 0, and NaN where a label is not known.
        groups : array-like of shape (n_samples,) or None, default=None
            Patients, who do not cross the validation split. None takes each image for
            a patient of its own.

        Returns
        -------
        self

        Raises
        ------
        MissingDependencyError
            If peft or accelerate is not installed.
        ImageReadError
            If images cannot be read; before the first step, and all are named.
        TypeError, ValueError
            If texts, labels or patients do not fit.
        ModelAccessError, CheckpointError
            If the model cannot be had, or ``run_dir`` holds another run.
        RunFolderError
            If the disk is full. What was done before is kept: ``resume=True``.
        OutOfMemoryError
            With three settings to change.
        """
        import_optional("accelerate", extra="finetune", purpose="Fine-tuning")
        if self.train == "lora":
            import_optional("peft", extra="finetune", purpose="train='lora'")
        validate_intensity(self.intensity)
        check_settings(self)
        from sk_medsiglip.fine_tuning._training import fine_tune

        outcome = fine_tune(self, X, y, groups, choose_device(self.device))
        return self._record(outcome)

    def _record(self, outcome: Outcome) -> Self:
        self._tuned = outcome.tuned
        self._n_features_out = outcome.base.embedding_dim
        self.base_revision_ = outcome.base.revision
        self.fingerprint_ = (
            outcome.base.revision
            if outcome.tuned is None
            else outcome.tuned.fingerprint
        )
        self.history_ = outcome.history
        self.n_steps_ = outcome.n_steps
        self.best_step_ = outcome.best_step
        self.n_trained_ = outcome.n_trained
        self.n_train_ = outcome.n_train
        self.validation_rows_ = outcome.validation_rows
        if outcome.answers is not None:
            self.classes_, self.coef_, self.intercept_ = outcome.answers
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return embeddings of the tuned encoder.

        Parameters
        ----------
        X : array-like of shape (n_samples,), (n_samples, H, W) or (n_samples, H, W, C)
            Images.

        Returns
        -------
        ndarray of shape (n_samples, embedding_dim), float32
            Not normalised. Stored under ``fingerprint_``.
        """
        return plain_rows(self.as_embedder(), X)

    def as_embedder(self) -> MedSigLIPEmbedder:
        """Return an embedder of the tuned encoder, for pipelines.

        Returns
        -------
        MedSigLIPEmbedder
            It names a folder beside the store of this machine and refuses others. For
            another machine ``save(path)`` and name that folder.
        """
        check_is_fitted(self)
        return self._embedder(self._tuned_model(), self.fingerprint_)

    def base_embedder(self) -> MedSigLIPEmbedder:
        """Return the embedder of the checkpoint before it is tuned, not fitted."""
        return self._embedder(self.model, self.revision)

    def _embedder(
        self, model: str | os.PathLike[str], revision: str | None
    ) -> MedSigLIPEmbedder:
        return MedSigLIPEmbedder(
            model,
            revision=revision,
            resize=self.resize,
            pad=self.pad,
            intensity=self.intensity,
            frame=self.frame,
            max_pixels=self.max_pixels,
            n_jobs=self.n_jobs,
            device=self.device,
            cache=self.cache,
            verbose=self.verbose,
        )

    def _tuned_model(self) -> str | os.PathLike[str]:
        """Return what names the tuned encoder on this machine."""
        if self._tuned is None:
            return self.model
        return os.fspath(self._tuned.folder(self.cache, os.fspath(self.model)))

    def reader(self, checkpoint: Checkpoint) -> Callable[[Any], NDArray[np.uint8]]:
        """Return what makes an image the model's pixels, as the embedder does.

        Parameters
        ----------
        checkpoint : Checkpoint
            For its size and image processor.

        Returns
        -------
        callable
            From a source to an array of shape (image_size, image_size, 3).
        """
        reading: dict[str, Any] = {
            "intensity": self.intensity,
            "frame": self.frame,
            "max_pixels": self.max_pixels,
        }
        if self.resize == "medsiglip":
            return partial(
                _read_resized, size=checkpoint.image_size, pad=self.pad, **reading
            )
        processor = load_image_processor(os.fspath(self.model), checkpoint.revision)

        def read(source: Any) -> NDArray[np.uint8]:
            pixels = read_image(source, **reading)
            return processor(
                pad_to_square(pixels, self.max_pixels) if self.pad else pixels
            )

        return read

    def plot_history(self, ax: Any = None) -> Any:
        """Draw losses by step.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            None makes a figure.

        Returns
        -------
        matplotlib Axes
        """
        check_is_fitted(self)
        from sk_medsiglip.fine_tuning._history_plot import plot_history

        return plot_history(self.history_, self.best_step_, ax)

    _tuned: Tuned | None
    history_: pd.DataFrame

    def __getstate__(self) -> dict[str, Any]:
        tuned = self.__dict__.get("_tuned")
        if tuned is not None and tuned.files is None:
            raise TypeError(
                f"A fine-tuner with train={self.train!r} holds whole weights, which do "
                "not belong into a pickle. Write them with save(path), and get them "
                "back with MedSigLIPFineTuner.load(path); or train='lora', whose "
                "adapter fits."
            )
        return super().__getstate__()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        if self.objective == "classification":
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags(multi_label=True)
            tags.target_tags.multi_output = True
        return tags


def _read_resized(source: Any, *, size: int, **reading: Any) -> NDArray[np.uint8]:
    return read_resized(source, size, **reading)
