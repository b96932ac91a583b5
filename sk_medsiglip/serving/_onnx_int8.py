"""The image tower with weights in int8, and what that costs on images of a user."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sk_medsiglip._labels import known_labels
from sk_medsiglip._optional import import_optional
from sk_medsiglip.embedding import MedSigLIPEmbedder, find_facts, prepare_image
from sk_medsiglip.images import image_rows
from sk_medsiglip.zero_shot import find_answers


def check_quantize(quantize: str, include_encoder: bool, X: Any) -> None:
    """Raise unless the option is known and has what it needs."""
    if quantize != "int8":
        raise ValueError(f'quantize must be "int8" or None; got {quantize!r}.')
    if not include_encoder:
        raise ValueError(
            "quantize changes the image tower; pass include_encoder=True, too."
        )
    if X is None:
        raise ValueError(
            "quantize changes probabilities; pass X, images on which to measure it."
        )


def quantize_weights(model: Any) -> Any:
    """Return an ONNX model whose products with weights are computed in int8."""
    import onnx

    with _same_logging(), TemporaryDirectory() as folder:
        tools = _import("onnxruntime.quantization")
        small = Path(folder) / "int8.onnx"
        tools.quantize_dynamic(
            model,
            small,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=tools.QuantType.QInt8,
        )
        return onnx.load(small)


def print_cost(
    file: Path, pipeline: Any, embedder: MedSigLIPEmbedder, X: Any, y: Any
) -> None:
    """Print how probabilities of a file with the image tower differ from Python's."""
    exact = np.asarray(pipeline.predict_proba(X))
    facts = find_facts(embedder.model, embedder.revision, embedder.cache)
    session = _import("onnxruntime").InferenceSession(
        file, providers=["CPUExecutionProvider"]
    )
    found = np.concatenate(
        [
            session.run(None, {"images": prepare_image(embedder, facts, one)[None]})[0]
            for one in image_rows(X)
        ]
    )
    change = np.abs(found - exact)
    lines = [
        f"int8 changes probabilities by {change.mean():.4f} on average and by "
        f"{change.max():.4f} at most ({len(change)} images)."
    ]
    if y is not None:
        before, after = (_areas(pipeline, shares, y) for shares in (exact, found))
        lines += [
            f"Area under the ROC curve, {name}: {before[name]:.4f}; "
            f"with int8 {after[name]:.4f}."
            for name in before
        ]
    print("\n".join(lines))  # noqa: T201 (the option is there for these figures)


def _areas(pipeline: Any, shares: NDArray[Any], y: Any) -> dict[str, float]:
    """Return the area of each finding or class that has known labels of both kinds."""
    answers = find_answers(pipeline, y)
    truth, rows = known_labels(y, answers.classes)
    shares, names = shares[rows], answers.finding_names
    if not answers.several:
        truth = (truth[:, None] == answers.classes).astype(float)
        names = answers.classes.tolist()
        if len(names) == 2:  # their areas are the same
            truth, shares, names = truth[:, 1:], shares[:, 1:], names[1:]
    areas = {}
    for name, labels, values in zip(names, truth.T, shares.T, strict=True):
        known = ~np.isnan(labels)
        if len(np.unique(labels[known])) == 2:
            areas[str(name)] = float(roc_auc_score(labels[known], values[known]))
    return areas


def _import(name: str) -> Any:
    return import_optional(name, extra="onnx", purpose='to_onnx(quantize="int8")')


@contextmanager
def _same_logging() -> Iterator[None]:
    """Undo what onnxruntime's tools do to the root logger; drop its advice."""
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.disabled
    root.disabled = True
    try:
        yield
    finally:
        root.handlers[:], root.disabled = handlers, disabled
        root.setLevel(level)
