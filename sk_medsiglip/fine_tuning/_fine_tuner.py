"""``MedSigLIPFineTuner``: images with texts or classes in, a better encoder out."""

from __future__ import annotations

from typing import Any, Self

from numpy.typing import ArrayLike
from sklearn.utils import ClassifierTags, Tags

from sk_medsiglip._optional import import_optional
from sk_medsiglip._validation import _fit_context
from sk_medsiglip.fine_tuning._fitted import FittedTuner
from sk_medsiglip.fine_tuning._settings import Settings


class MedSigLIPFineTuner(FittedTuner):
    """Fine-tune MedSigLIP on images with texts, or with classes.

    Needs ``pip install "sk-medsiglip[finetune]"``. The result is an encoder like any
    other: ``transform`` gives its embeddings, ``as_embedder`` an embedder for
    pipelines, ``save`` a folder that every ``model=`` of this package takes, ``merge``
    one that plain transformers opens.

    Parameters
    ----------
    embedder : MedSigLIPEmbedder or None, default=None
        The encoder to tune, and how it reads images: model, resizing, intensity,
        threads, device and store. Adapters and runs lie beside its store. By default
        ``MedSigLIPEmbedder()``. Its ``device`` is "auto", "cpu", "cuda" or "mps": one
        process has one GPU. Choose it with ``CUDA_VISIBLE_DEVICES``, use several with
        ``torchrun --nproc-per-node`` or ``accelerate launch``. ``fit`` raises on
        images that cannot be read, whatever its ``on_error``.
    objective : {"contrastive", "classification"}, default="contrastive"
        "contrastive" brings images and their texts together, by the sigmoid loss that
        SigLIP was trained with [1]_. "classification" puts a linear layer on the image
        tower and trains by cross-entropy; several labels may have blanks.
    prompts : mapping or None, default=None
        Descriptions of the labels for "contrastive" without captions: of each class,
        or of each finding present and absent; as
        :class:`~sk_medsiglip.ZeroShotClassifier` takes them. An image shows one of the
        prompts of its labels in each epoch, and of its findings those that are present
        at least every second time.
    templates : str, sequence of str, mapping or None, default=None
        Texts with one ``{}`` each, to be filled with the prompts.
    same_caption : {"positive", "ignore", "negative"}, default="positive"
        Role of another row's text that is true of an image too: also a pair (several
        positives), left out, or, as in the paper, a counter-example. Texts of the same
        picture in another row count as true of it.
    keep : mapping, sequence of str or None, default=None
        Prompts, as :class:`~sk_medsiglip.ZeroShotClassifier` takes them, or texts, that
        must not be forgotten. The scores that they give the training images are
        measured before the first step, and their changes are added to the loss [3]_;
        labels are not needed. A step looks at ``batch_size`` of the texts at most,
        drawn anew each time.
    keep_weight : float, default=1.0
        Weight of these changes. At 1, each score that has changed by as much as it
        differs between images adds 1 to the loss. They are not part of
        ``validation_loss``, by which ``validation_fraction`` chooses the weights.
    train : {"lora", "last_blocks", "head", "full"}, default="lora"
        The weights to train: low-rank matrices beside each layer [2]_; the last
        ``n_blocks`` layers and everything after them; the attention pooling and the
        text projection (for "classification" the new layer alone, on embeddings that
        are computed once); all. Only the result of "lora" fits into a pickle.
    towers : {"both", "image", "text"}, default="both"
        The towers to train for "contrastive". The output of the other one is computed
        once.
    lora_rank : int, default=8
        Columns of the low-rank matrices. At 8 and all layers an adapter of MedSigLIP
        has 35 MB, of the attention alone 16 MB.
    lora_alpha : float or None, default=None
        The product of the matrices is scaled by ``lora_alpha / lora_rank``. By
        default, twice the rank.
    lora_dropout : float, default=0.0
        Share of their inputs that is dropped in training.
    lora_layers : {"attention", "all"}, default="attention"
        The linear layers of a block that get them: the four of its attention, or those
        of its perceptron too.
    n_blocks : int, default=2
        Number of layers to train for "last_blocks".
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
        Learning rate of the top layer. "auto" is 1e-3 for "lora" and "head", 5e-5 for
        "last_blocks", 1e-5 for "full". A new classifier on a tower that is trained
        moves at 1e-3 at least.
    schedule : {"cosine", "linear", "constant"}, default="cosine"
        Learning-rate schedule after the warm-up.
    warmup : float, default=0.05
        Share of the steps in which the learning rate rises.
    weight_decay : float, default=0.01
        Weight decay, applied to weight matrices only.
    layer_decay : float, default=1.0
        Factor on the learning rate for each layer further down; 0.9 keeps early layers
        of "full" and "last_blocks" closer to their former state.
    gradient_checkpointing : bool, default=False
        Compute layers again on the way back instead of keeping their output: a third
        slower, at a fraction of the memory.
    bf16 : bool or "auto", default="auto"
        Whether products are computed in bfloat16. "auto" does so on GPUs that have it.
    pos_weight : "balanced", float, array-like or None, default=None
        Factors on the loss of positives for "classification", one for each label; for
        three and more classes, one for each class. "balanced" gives rare and common
        ones the same weight.
    augment : "auto", Augmentation or None, default="auto"
        Changes of training images. "auto" is ``Augmentation()``, small shifts and tones
        without mirroring, if the image tower is trained; else none.
    validation_fraction : float or None, default=None
        Share of the rows that is left out of training and judged, by whole patients.
        The weights with the best validation loss are kept.
    patience : int or None, default=3
        Number of validations without a better loss after which training stops.
    checkpoint_every : int or None, default=None
        Steps between two checkpoints, and two validations. By default, once an epoch,
        and 50 times a run at most.
    run_dir : str, path-like or None, default=None
        Folder of the run's checkpoints, which it keeps. The default is one beside the
        store of embeddings, named by settings and data, that is deleted when the run is
        done. Processes on several machines must all see it.
    resume : bool, default=False
        Continue from the last checkpoint of this run, or start if it has none.
        The result is that of an unbroken run. False starts anew.
    random_state : int, RandomState or None, default=None
        Seed of the random number generator. Runs with the same int are equal.
    verbose : int, default=0
        A value above 0 shows progress bars.
    **deprecated : dict
        Former parameters that belong to the embedder: ``model``, ``revision``,
        ``resize``, ``pad``, ``intensity``, ``frame``, ``max_pixels``, ``n_jobs``,
        ``device``, ``cache``. They make an embedder, with a ``FutureWarning``, and will
        be removed in version 0.2.

    Attributes
    ----------
    history_ : DataFrame
        One row a step: ``step``, ``epoch``, ``loss``, ``learning_rate``,
        ``gradient_norm``, and at validations ``validation_loss`` and, for classes,
        ``validation_auc``.
    base_revision_ : str
        Commit or folder digest of the checkpoint that was tuned.
    fingerprint_ : str
        Digest of the tuned weights and their base. Embeddings are stored under it.
    n_steps_, best_step_ : int
        The number of steps, and the step whose weights were kept.
    n_trained_ : int
        Number of trained values.
    n_train_ : int
        Number of training images.
    validation_rows_ : ndarray of int
        Rows of ``X`` that were left out of training.
    classes_ : ndarray
        For "classification": sorted labels, or one row ``[0, 1]`` a label.
    coef_, intercept_ : ndarray
        For "classification": the layer on the tuned embeddings, scaled to the length
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
    MedSigLIP needs a GPU; on these cores a fit of one low-rank step takes half a minute
    and 5 GiB with one image and its tower, 50 s and 8 GiB with two images, both towers
    and ``gradient_checkpointing``, loading included.

    A pickle holds the adapter and the name and revision of the base, never the base's
    weights. The tuned encoder lies in a folder of adapters beside the store, which is
    made again on the machine where a pickle is opened.

    Weights that were tuned from MedSigLIP stay under its terms; ``save`` and ``merge``
    write the NOTICE that these ask for, and a model card, ``README.md``: base, size of
    the data, settings, losses, licence and limits. Not a medical device.

    References
    ----------
    .. [1] Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
    .. [2] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    .. [3] After Li and Hoiem, "Learning without Forgetting", IEEE TPAMI 40, 2018; they
       keep classes, here the scores of texts are kept.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.fine_tuning import MedSigLIPFineTuner
    >>> phantoms = make_chest_phantoms(16, random_state=0)
    >>> tuner = MedSigLIPFineTuner(
    ...     MedSigLIPEmbedder("demo"), max_steps=2, batch_size=8, random_state=0
    ... )
    >>> tuner.fit(list(phantoms.images), phantoms.captions).history_["step"].tolist()
    [1, 2]
    >>> tuner.transform(list(phantoms.images)).shape
    (16, 192)
    """

    @_fit_context(prefer_skip_nested_validation=False)
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
            all true of it; with ``prompts`` labels. For "classification" labels:
            classes, or a table of 1, 0, and NaN where a label is not known.
        groups : array-like of shape (n_samples,) or None, default=None
            Patients. All images of a patient are on one side of the validation split.
            By default, each image counts as a patient of its own.

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
            If texts, labels or patients do not fit each other.
        ModelAccessError, CheckpointError
            If the model cannot be loaded, or ``run_dir`` holds another run.
        RunFolderError
            If the disk is full. Finished checkpoints are kept for ``resume=True``.
        OutOfMemoryError
            If a step does not fit into memory; names three settings to change.
        """
        import_optional("accelerate", extra="finetune", purpose="Fine-tuning")
        if self.train == "lora":
            import_optional("peft", extra="finetune", purpose="train='lora'")
        reading = self.base_embedder().set_params(on_error="raise", normalize=False)
        settings = Settings(
            **(self.get_params(deep=False) | {"embedder": reading.fit(X)})
        )
        from sk_medsiglip.fine_tuning._training import fine_tune

        self._set_fitted(*fine_tune(settings, X, y, groups))
        return self

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
