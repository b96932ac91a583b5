"""``MedSigLIPFineTuner``: fine-tuning on images with texts or classes."""

from __future__ import annotations

from typing import Any, Self

from numpy.typing import ArrayLike
from sklearn.utils import ClassifierTags, Tags

from sk_medsiglip._optional import import_optional
from sk_medsiglip._validation import _fit_context
from sk_medsiglip.fine_tuning._fitted import FittedTuner
from sk_medsiglip.fine_tuning._settings import Settings


class MedSigLIPFineTuner(FittedTuner):
    """Fine-tune MedSigLIP on images with texts or classes.

    Requires ``pip install "sk-medsiglip[finetune]"``. The result is used like any other
    encoder: ``transform`` returns its embeddings, ``as_embedder`` returns an embedder
    for pipelines, ``save`` writes a folder that can be passed as ``model=`` in this
    package, and ``merge`` writes a folder that transformers can load.

    Parameters
    ----------
    embedder : MedSigLIPEmbedder or None, default=None
        The embedder to tune. It sets the model, the way images are read, threads,
        device and store; adapters and runs are stored beside its store. By default
        ``MedSigLIPEmbedder()``. Its ``device`` must be "auto", "cpu", "cuda" or "mps",
        since each process uses one GPU. Choose the GPU with ``CUDA_VISIBLE_DEVICES``,
        and use several with ``torchrun --nproc-per-node`` or ``accelerate launch``.
        ``fit`` raises on images that cannot be read, whatever its ``on_error``.
    objective : {"contrastive", "classification"}, default="contrastive"
        Objective of the training. "contrastive" aligns images with their texts by the
        sigmoid loss of SigLIP [1]_. "classification" adds a linear layer to the image
        tower and uses cross-entropy; several labels may have blanks.
    prompts : mapping or None, default=None
        Descriptions of the labels, for "contrastive" without captions: one or more for
        each class, or for each finding when present and when absent, as in
        :class:`~sk_medsiglip.ZeroShotClassifier`. In each epoch an image is paired with
        one of the prompts of its labels. For an image with findings this prompt
        describes a finding that is present in at least half of the epochs.
    templates : str, sequence of str, mapping or None, default=None
        Texts with one ``{}`` each, to be filled with the prompts.
    same_caption : {"positive", "ignore", "negative"}, default="positive"
        Treatment of texts of other rows that are also true of an image: as further
        positives, left out, or as negatives, which is the method of the paper. Texts of
        an identical image in another row count as true.
    keep : mapping, sequence of str or None, default=None
        Prompts, as in :class:`~sk_medsiglip.ZeroShotClassifier`, or texts whose scores
        should be preserved. Their scores on the training images are computed before
        training, and later changes are added to the loss [3]_. Labels are not needed.
        Each step uses at most ``batch_size`` of these texts, drawn at random.
    keep_weight : float, default=1.0
        Weight of these changes. At 1, a score whose change equals its standard
        deviation over images adds 1 to the loss. They are not part of
        ``validation_loss``, by which ``validation_fraction`` selects the weights.
    train : {"lora", "last_blocks", "head", "full"}, default="lora"
        The weights to train:

        - "lora": low-rank matrices beside each layer [2]_. Only the result of this
          option fits into a pickle;
        - "last_blocks": the last ``n_blocks`` layers and everything after them;
        - "head": the attention pooling and the text projection; for "classification"
          only the new layer, on embeddings that are computed once;
        - "full": all weights.
    towers : {"both", "image", "text"}, default="both"
        The towers to train for "contrastive". The output of the other one is computed
        once.
    lora_rank : int, default=8
        Rank of the low-rank matrices. With rank 8 an adapter of MedSigLIP has 16 MB for
        the attention layers, and 35 MB for all layers.
    lora_alpha : float or None, default=None
        Scale of the low-rank matrices, whose product is multiplied by ``lora_alpha /
        lora_rank``. By default, twice the rank.
    lora_dropout : float, default=0.0
        Dropout probability of the inputs of the low-rank matrices.
    lora_layers : {"attention", "all"}, default="attention"
        The linear layers of a block that get low-rank matrices: the four of its
        attention, or those of its perceptron too.
    n_blocks : int, default=2
        Number of layers to train for "last_blocks".
    epochs : int, default=10
        Number of passes over the training rows.
    max_steps : int or None, default=None
        Number of optimizer steps. It overrides ``epochs``.
    batch_size : int, default=16
        Number of images in one forward pass of a process. With several processes a text
        is compared with the images of all of them.
    accumulate : int, default=1
        Number of forward passes per step. Rows of different passes are not compared
        with each other.
    learning_rate : float or "auto", default="auto"
        Learning rate of the top layer. "auto" is 1e-3 for "lora" and "head", 5e-5 for
        "last_blocks" and 1e-5 for "full". A new classifier on a tower that is trained
        has a learning rate of at least 1e-3.
    schedule : {"cosine", "linear", "constant"}, default="cosine"
        Learning-rate schedule after the warm-up.
    warmup : float, default=0.05
        Share of the steps in which the learning rate rises.
    weight_decay : float, default=0.01
        Weight decay, applied to weight matrices only.
    layer_decay : float, default=1.0
        Factor on the learning rate for each layer below the top. 0.9 keeps early layers
        closer to their initial weights with "full" and "last_blocks".
    gradient_checkpointing : bool, default=False
        Whether to recompute layers in the backward pass instead of keeping their
        output. This is a third slower and needs a fraction of the memory.
    bf16 : bool or "auto", default="auto"
        Whether to compute matrix products in bfloat16. "auto" does so on GPUs that
        support it.
    pos_weight : "balanced", float, array-like or None, default=None
        Weights of positives in the loss for "classification", one per label; for three
        or more classes, one weight per class. "balanced" gives rare and common ones the
        same total weight.
    augment : "auto", Augmentation or None, default="auto"
        Random changes of training images. "auto" means ``Augmentation()``, small shifts
        and changes of brightness without mirroring, if the image tower is trained, and
        else no changes.
    validation_fraction : float or None, default=None
        Share of the rows that is held out for validation, by whole patients. The
        weights with the lowest validation loss are kept.
    patience : int or None, default=3
        Number of validations without a lower loss after which training stops.
    checkpoint_every : int or None, default=None
        Number of steps between checkpoints, and between validations. By default, one
        epoch, with at most 50 checkpoints in a run.
    run_dir : str, path-like or None, default=None
        Folder for the checkpoints of the run, which is kept. By default, a folder
        beside the store of embeddings, named by settings and data, which is deleted at
        the end of the run. Processes on several machines need a folder that all of them
        can access.
    resume : bool, default=False
        Whether to continue from the last checkpoint of this run, if there is one. The
        result equals that of an uninterrupted run. False starts from the beginning.
    random_state : int, RandomState or None, default=None
        Seed of the random number generator. Runs with the same int are equal.
    verbose : int, default=0
        Verbosity. Values above 0 show progress bars.
    **deprecated : dict
        Former parameters that belong to the embedder: ``model``, ``revision``,
        ``resize``, ``pad``, ``intensity``, ``frame``, ``max_pixels``, ``n_jobs``,
        ``device``, ``cache``. They make an embedder, with a ``FutureWarning``, and will
        be removed in version 0.2.

    Attributes
    ----------
    history_ : DataFrame
        One row per step, with the columns ``step``, ``epoch``, ``loss``,
        ``learning_rate`` and ``gradient_norm``; for validations also
        ``validation_loss`` and, for classes, ``validation_auc``.
    base_revision_ : str
        Commit or folder digest of the checkpoint that was tuned.
    fingerprint_ : str
        Digest of the tuned weights and their base. It is the revision under which
        embeddings are stored.
    n_steps_, best_step_ : int
        Number of steps, and the step whose weights were kept.
    n_trained_ : int
        Number of trained parameters of the network.
    n_train_ : int
        Number of training images.
    validation_rows_ : ndarray of int
        Rows of ``X`` that were left out of training.
    classes_ : ndarray
        Sorted classes for "classification"; with several labels, one row ``[0, 1]`` per
        label.
    coef_, intercept_ : ndarray
        Weights of the layer for "classification". Its inputs are tuned embeddings
        scaled to the length ``sqrt(width)``.

    See Also
    --------
    sk_medsiglip.LinearProbe : A classifier on embeddings without fine-tuning. Try it
        first.

    Notes
    -----
    Images are read and resized once, before the first step. Up to 1 GiB (1,783 images
    of MedSigLIP) they are kept in memory, and beyond that in a file beside the run, at
    602 kB per image.

    On 2 CPU cores the demonstration checkpoint trains on about 100 images per second. A
    step costs little more than its forward and backward passes
    (``docs/benchmarks.md``). MedSigLIP needs a GPU: on the same cores one step of
    "lora", including loading, takes half a minute and 5 GiB with one image and the
    image tower, and 50 s and 8 GiB with two images, both towers and
    ``gradient_checkpointing``.

    A pickle holds the adapter, and the name and revision of the base, but not the
    weights of the base. The tuned encoder is in a folder of adapters beside the store,
    which is created again on a machine where the pickle is loaded.

    Weights tuned from MedSigLIP stay under its terms. ``save`` and ``merge`` write the
    NOTICE that these require, and a model card ``README.md`` with the base, size of the
    data, settings, losses, licence and limits. The result is not a medical device.

    References
    ----------
    .. [1] Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
    .. [2] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    .. [3] Based on Li and Hoiem, "Learning without Forgetting", IEEE TPAMI 40, 2018,
       with scores of texts in place of classes.

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
        """Fine-tune the encoder.

        Parameters
        ----------
        X : array-like of shape (n_samples,), (n_samples, H, W) or (n_samples, H, W, C)
            Images, as in :class:`~sk_medsiglip.MedSigLIPEmbedder`.
        y : array-like
            For "contrastive", a caption for each image, or a list of captions that are
            all true of it; with ``prompts``, labels. For "classification", labels:
            classes, or a table of 1, 0, and NaN where a label is not known.
        groups : array-like of shape (n_samples,) or None, default=None
            Patients. All images of a patient are on one side of the validation split.
            By default, each image counts as a patient.

        Returns
        -------
        self
            The fitted fine-tuner.

        Raises
        ------
        MissingDependencyError
            If peft or accelerate is not installed.
        ImageReadError
            If images cannot be read. It is raised before the first step and names all
            of them.
        TypeError, ValueError
            If texts, labels or patients are invalid, or their lengths differ.
        ModelAccessError, CheckpointError
            If the model cannot be loaded, or if ``run_dir`` holds another run.
        RunFolderError
            If the disk is full. Finished checkpoints are kept for ``resume=True``.
        OutOfMemoryError
            If a step does not fit into memory. The message names three settings to
            change.
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
