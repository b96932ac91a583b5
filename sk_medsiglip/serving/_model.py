"""The answers of a saved classifier, as a service gives them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._version import __version__
from sk_medsiglip.audit import NoveltyGate
from sk_medsiglip.embedding import (
    MedSigLIPEmbedder,
    PreparedImages,
    find_facts,
    plain_rows,
    prepare_image,
)
from sk_medsiglip.encoder import is_demonstration
from sk_medsiglip.serving._parts import image_embedder, iter_layers, split_classifier
from sk_medsiglip.zero_shot import ConformalZeroShot, find_answers, list_probabilities

_STATES = ("absent", "present")


class ServedModel:
    """A fitted classifier of images, whose answers can be sent as JSON.

    ``prepare`` turns one image into pixels at the model's size. It can be pickled, so
    it may run in another process. ``answer`` takes the pixels of many; ``n_threads``
    threads may call it at a time, each of which calls ``start_thread`` first.
    """

    def __init__(
        self, classifier: Any, *, cache: Any = False, device: str | None = None
    ) -> None:
        embedder, rest = split_classifier(classifier)
        if not hasattr(rest, "predict_proba"):
            raise TypeError(
                "the service answers with probabilities, and the classifier has no "
                "predict_proba. Wrap its last step in CalibratedClassifierCV, and fit "
                "the pipeline again."
            )
        self._embedder, self._classifier = copy.deepcopy((embedder, rest))
        reader = image_embedder(self._embedder)
        facts = find_facts(reader.model, reader.revision, cache)
        self.image_size = facts.image_size
        self.prepare = partial(prepare_image, copy.deepcopy(reader), facts)
        # Prepared pixels are at the model's size, and their brightness is decided.
        plain = {"intensity": "auto", "frame": None, "pad": False, "n_jobs": None}
        reader.set_params(
            **plain, resize="medsiglip", on_error="raise", verbose=0, cache=cache
        )
        if device is not None:
            reader.set_params(device=device)
        self.n_threads = 1
        self.start_thread: Callable[[], None] | None = None
        self._rows_of: Callable[..., NDArray[Any]] = partial(plain_rows, self._embedder)
        if isinstance(self._embedder, MedSigLIPEmbedder):
            prepared = PreparedImages(self._embedder)
            self._rows_of = prepared
            self.n_threads = prepared.n_threads
            if self.n_threads > 1:
                self.start_thread = prepared.start_thread
        self._gate = self._sets = None
        self._before_gate: tuple[Any, ...] = ()
        self._before_sets: tuple[Any, ...] = ()
        for layer, before in iter_layers(self._classifier):
            if isinstance(layer, NoveltyGate):
                layer.set_params(on_novel="ignore")  # the answer says so
                self._gate, self._before_gate = layer, before
            elif isinstance(layer, ConformalZeroShot):
                self._sets, self._before_sets = layer, before
            last = layer
        self._answers = find_answers(self._classifier, None)
        #: Name of the only finding, where there is one with prompts of its own.
        one = list(getattr(last, "findings_", ()))
        self._finding = str(one[0]) if len(one) == 1 else None
        model = os.fspath(reader.model)
        self.info = {
            "model": Path(model).name if os.path.isabs(model) else model,
            "revision": reader.revision_,
            "version": __version__,
            "demonstration": is_demonstration(model),
            "names": self._names(),
            "exclusive": not self._answers.several and self._finding is None,
            "has_sets": self._sets is not None,
            "has_novelty": self._gate is not None,
        }

    def warm_up(self) -> None:
        """Load the weights, or raise the error that a request would meet."""
        self.answer([np.zeros((self.image_size, self.image_size, 3), np.uint8)])

    def answer(self, pixels: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Return one answer an image: probabilities, decision, set and novelty."""
        X = self._rows_of(np.stack(pixels))
        shares = list_probabilities(self._classifier, X, self._answers)
        decisions = np.asarray(self._classifier.predict(X))
        answers = [
            {"probabilities": self._by_name(share), "decision": self._decision(decided)}
            for share, decided in zip(shares, decisions, strict=True)
        ]
        if self._sets is not None:
            sets = self._sets.predict_set(_through(self._before_sets, X))
            for answer, members in zip(answers, sets, strict=True):
                answer["set"] = self._set(members)
        if self._gate is not None:
            rows = _through(self._before_gate, X)
            found = zip(
                self._gate.p_values(rows), self._gate.predict(rows), strict=True
            )
            for answer, (p_value, side) in zip(answers, found, strict=True):
                answer["novelty"] = {"p_value": float(p_value), "novel": bool(side < 0)}
        return answers

    def _names(self) -> list[str]:
        """Return the names of classes or findings, in the order of columns."""
        if self._finding is not None:
            return [self._finding]
        if self._answers.several:
            return [str(name) for name in self._answers.finding_names]
        return [str(name) for name in self._answers.classes]

    def _by_name(self, shares: NDArray[np.float64]) -> dict[str, float]:
        if self._answers.several or self._finding is not None:
            shares = shares[..., 1].reshape(-1)
        return dict(zip(self._names(), shares.tolist(), strict=True))

    def _decision(self, decided: Any) -> Any:
        """Return the likeliest class, or which findings are present."""
        if self._answers.several or self._finding is not None:
            present = (np.atleast_1d(decided) > 0).tolist()
            return dict(zip(self._names(), present, strict=True))
        return np.asarray(decided).item()

    def _set(self, members: NDArray[np.bool_]) -> Any:
        """Return the classes of a conformal set, or the states of each finding."""
        if self._answers.several or self._finding is not None:
            states = [
                [state for state, is_in in zip(_STATES, pair, strict=True) if is_in]
                for pair in members.reshape(-1, 2)
            ]
            return dict(zip(self._names(), states, strict=True))
        return self._answers.classes[members].tolist()


def _through(steps: Sequence[Any], X: NDArray[Any]) -> NDArray[Any]:
    """Return rows as they leave some steps of a pipeline."""
    for step in steps:
        X = plain_rows(step, X)
    return X
