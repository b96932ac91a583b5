"""``compare_prompts``: the AUC of each prompt on a few labelled images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array

from sk_medsiglip._bags import check_bags, is_bags
from sk_medsiglip._intervals import Estimate, area_estimate, combine
from sk_medsiglip._progress import progress_bar
from sk_medsiglip._resampling import check_level
from sk_medsiglip._splits import group_numbers
from sk_medsiglip._warning import warn_user
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.prompts import check_prompts, lint_prompts
from sk_medsiglip.zero_shot._instances import make_pooling
from sk_medsiglip.zero_shot._prompt_choices import Choice, encode_choices, log_odds

_FIGURES = (
    *("auc", "auc_low", "auc_high", "gain", "gain_low", "gain_high"),
    *("n_positive", "n_negative"),
)
_FROM_LINT = ("n_tokens", "truncated", "nearest", "cosine", "problem")


def compare_prompts(
    prompts: Mapping[Any, Any],
    X: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    templates: Any = None,
    model: str | os.PathLike[str] = "google/medsiglip-448",
    revision: str | None = None,
    similarity: float = 0.98,
    level: float = 0.95,
    aggregate: str | Mapping[Any, str] = "max",
    top_k: int = 5,
    device: str = "auto",
    cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
    verbose: int | bool = 0,
) -> pd.DataFrame:
    """Measure how well each prompt detects its class, alone and in its ensemble.

    Parameters
    ----------
    prompts, templates, model, revision
        Parameters of :class:`~sk_medsiglip.ZeroShotClassifier`.
    X : array-like of shape (n_samples, embedding_dim), or bags
        Image embeddings of the same model; or bags of shape (n_samples, n_instances,
        embedding_dim), with NaN for missing instances.
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        A few labels: names of classes; or 1, 0, and NaN where a finding is not known,
        with columns in the order of the prompts.
    groups : array-like of shape (n_samples,), default=None
        Patients. Without them intervals are too narrow if patients have several images.
    similarity, device, cache
        Parameters of :func:`~sk_medsiglip.prompts.lint_prompts`.
    level : float, default=0.95
        Confidence level of the intervals.
    aggregate, top_k
        Pooling of the scores of a bag's instances, as in
        :class:`~sk_medsiglip.ZeroShotClassifier`.
    verbose : int, default=0
        Verbosity. Values above 0 show a progress bar.

    Returns
    -------
    DataFrame
        One row per prompt, and one per ensemble (where ``text`` and ``side`` are ""),
        with the columns

        - ``label``, ``side``, ``text``: as in :func:`lint_prompts`;
        - ``auc``, ``auc_low``, ``auc_high``: the area under the ROC curve of the label
          against the rest, with this prompt as the only one of its class or side and
          all prompts of the others; for an ensemble, with all prompts;
        - ``gain``, ``gain_low``, ``gain_high``: the loss of the ensemble's area without
          this prompt. It is negative if the ensemble is better without the prompt on
          these images, and NaN for the only prompt of its side;
        - ``n_positive``, ``n_negative``: numbers of images;
        - ``n_tokens``, ``truncated``, ``nearest``, ``cosine``, ``problem``: as in
          :func:`lint_prompts`; missing for ensembles.

    Raises
    ------
    PromptError
        If the prompts are malformed.
    ValueError
        If ``X`` has the width of another model, or if ``y`` holds labels without
        prompts.

    Warns
    -----
    PromptWarning
        If class vectors are nearly equal.

    See Also
    --------
    PromptSearchCV : Choose prompts, and estimate the gain on held-out images.
    PromptComparisonDisplay : Plot this table.

    Notes
    -----
    Do not choose the best of many prompts by this table and report its area: that is
    selection on the test set, and the interval is valid only for a prompt chosen
    beforehand. A gain whose interval includes 0 is within noise. Intervals are not
    adjusted for their number, so that of twenty prompts without any effect, one is
    expected to have an interval that excludes 0.

    Intervals are those of :func:`~sk_medsiglip.evaluation.evaluate`: Newcombe's by
    patient, and MOVER's for the difference of two areas of the same images. If prompts
    rank all images in the same order, ``gain`` is 0 and has no interval.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.zero_shot import compare_prompts
    >>> phantoms = make_chest_phantoms(120, random_state=3)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> table = compare_prompts(
    ...     {"effusion": {"positive": ["pleural effusion", "a rib"],
    ...                   "negative": ["no pleural effusion"]}},
    ...     X, phantoms.target[:, 1], groups=phantoms.groups, model="demo",
    ... )
    >>> table[["side", "text"]].iloc[0].tolist()
    ['', '']
    >>> alone = table.set_index("text")["auc"]
    >>> bool(alone["pleural effusion"] > alone["a rib"])
    True
    """
    check_level(level)
    rows: Any = X
    if is_bags(X):
        rows = check_bags(X, estimator=compare_prompts, values=False)
    else:
        rows = check_array(X, dtype=[np.float64, np.float32])
    question = check_prompts(prompts, templates)
    pooling = make_pooling(aggregate, top_k, question)
    labels = question.read_labels(compare_prompts, rows, y)
    patients = group_numbers(groups, len(rows))
    side: dict[str, Any] = {"revision": revision, "device": device, "cache": cache}
    report = lint_prompts(
        prompts, templates=templates, model=model, similarity=similarity, **side
    )
    embedder = MedSigLIPTextEmbedder(model, **side)
    lines: list[dict[str, Any]] = []
    with progress_bar(
        len(report), desc="comparing", unit="prompt", verbose=verbose
    ) as bar:
        for choice in encode_choices(question, labels, rows, embedder, pooling):
            who = patients[choice.rows]
            for told in [1] if choice.name else range(len(choice.classes)):
                lines += _compare(choice, told, who, level, bar)
    # Columns are named, since no row has a gain if every side has one prompt.
    table = pd.DataFrame(lines, columns=["label", "prompt", *_FIGURES])
    lint = report[["side", "text", *_FROM_LINT]]
    table = table.join(lint, on="prompt").drop(columns="prompt")
    words = ["side", "text", "problem"]
    table[words] = table[words].fillna("")
    table = table.astype({"n_tokens": "Int64", "truncated": "boolean"})
    return table[["label", "side", "text", *_FIGURES, *_FROM_LINT]]


def _compare(
    choice: Choice, told: int, who: NDArray[np.intp], level: float, bar: Any
) -> Iterator[dict[str, Any]]:
    """Yield the row of a label's ensemble, followed by those of its prompts."""
    ill = choice.target == told
    ensemble = _area(choice, told, choice.weights, who)
    if ill.all() or not ill.any():
        warn_user(
            f"the labels of {str(choice.name or choice.classes[told])!r} are of one "
            "kind, so its area is undefined.",
            UserWarning,
        )
    common = {
        "label": choice.name or choice.classes[told],
        "n_positive": int(ill.sum()),
        "n_negative": int((~ill).sum()),
    }
    yield {**common, **_figure("auc", ensemble, level), "prompt": -1}
    # Prompts of both sides affect a finding; those of a class affect this class.
    answers = [1, 0] if choice.name else [told]
    for answer in answers:
        own = choice.members[answer]
        for place in np.flatnonzero(own).tolist():
            alone, without = choice.weights * (1 - own), choice.weights.copy()
            alone[place], without[place] = 1, 0
            row = common | _figure("auc", _area(choice, told, alone, who), level)
            if (without * own).any():
                gain = [ensemble, _area(choice, told, without, who)]
                row |= _figure("gain", combine(gain, [1, -1]), level)
            bar.update(1)
            yield {**row, "prompt": int(np.concatenate(choice.prompts)[place])}


def _area(
    choice: Choice, told: int, weights: NDArray[np.float64], who: NDArray[np.intp]
) -> Estimate:
    """Return the area of one answer against the rest, given the patients."""
    odds = log_odds(choice.logits(weights), told)
    return area_estimate(choice.target == told, odds, who, int(who.max()) + 1)


def _figure(name: str, estimate: Estimate, level: float) -> dict[str, float]:
    """Return a value and its interval."""
    low, high, _ = estimate.interval(level)
    return {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
