"""The steps of a fitted classifier of rows as nodes of an ONNX graph.

Everything is computed in float64, as scikit-learn does; only the result is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)

from sk_medsiglip._optional import import_optional
from sk_medsiglip.heads import (
    LinearProbe,
    PromptProbe,
    PrototypeClassifier,
    SSTextClassifier,
    TipAdapterClassifier,
)
from sk_medsiglip.serving._parts import iter_layers
from sk_medsiglip.zero_shot import ZeroShotClassifier


class Graph:
    """Nodes and constants, named as they come."""

    def __init__(self) -> None:
        self.onnx = import_optional("onnx", extra="onnx", purpose="to_onnx")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        name = f"{op.lower()}_{len(self.nodes)}"
        make = self.onnx.helper.make_node
        self.nodes.append(make(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: ArrayLike, dtype: Any = np.float64) -> str:
        """Add numbers; return their name."""
        name = f"constant_{len(self.constants)}"
        array = np.asarray(values, dtype, order="C")
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def linear(self, rows: str, coef: ArrayLike, constant: ArrayLike) -> str:
        """Add ``rows @ coef.T + constant``."""
        product = self.add("MatMul", rows, self.constant(np.asarray(coef).T))
        return self.add("Add", product, self.constant(constant))

    def unit(self, rows: str) -> str:
        """Add the scaling of rows to length 1; rows of zeros stay so."""
        length = self.add("ReduceL2", rows, self.constant([1], np.int64), keepdims=1)
        least = self.constant(np.finfo(np.float64).tiny)
        return self.add("Div", rows, self.add("Max", length, least))


def add_classifier(graph: Graph, classifier: Any, rows: str) -> str:
    """Add a fitted classifier of rows; return the name of its probabilities."""
    steps = [
        step
        for step, _ in iter_layers(classifier)
        if not isinstance(step, Pipeline) and not _keeps_probabilities(step)
    ]
    for step in steps[:-1]:
        rows = _find(_TRANSFORMERS, step)(graph, step, rows)
    return _find(_CLASSIFIERS, steps[-1])(graph, steps[-1], rows)


def _keeps_probabilities(estimator: Any) -> bool:
    """Tell whether a meta-estimator returns the probabilities of what is in it."""
    # Selectors of features, such as RFE, change the input of what is in them.
    return len(list(iter_layers(estimator))) > 1 and not hasattr(estimator, "transform")


def _find(table: dict[type, Callable[..., str]], step: Any) -> Callable[..., str]:
    if type(step) in table:
        return table[type(step)]
    possible = ", ".join(kind.__name__ for kind in (*_TRANSFORMERS, *_CLASSIFIERS))
    raise TypeError(
        f"to_onnx cannot write {type(step).__name__}; it knows {possible}, alone and "
        "in pipelines. Leave the step out, or deploy the pipeline as a .skops file."
    )


def _standard_scaler(graph: Graph, step: StandardScaler, rows: str) -> str:
    mean = step.mean_ if step.with_mean else None  # it is there in either case
    return _shift_and_divide(graph, rows, mean, step.scale_)


def _robust_scaler(graph: Graph, step: RobustScaler, rows: str) -> str:
    return _shift_and_divide(graph, rows, step.center_, step.scale_)


def _max_abs_scaler(graph: Graph, step: MaxAbsScaler, rows: str) -> str:
    scaled = _shift_and_divide(graph, rows, None, step.scale_)
    if not getattr(step, "clip", False):  # a parameter of later versions
        return scaled
    return graph.add("Clip", scaled, graph.constant(-1.0), graph.constant(1.0))


def _shift_and_divide(
    graph: Graph, rows: str, center: ArrayLike | None, scale: ArrayLike | None
) -> str:
    if center is not None:
        rows = graph.add("Sub", rows, graph.constant(center))
    if scale is not None:
        rows = graph.add("Div", rows, graph.constant(scale))
    return rows


def _min_max_scaler(graph: Graph, step: MinMaxScaler, rows: str) -> str:
    scaled = graph.add("Mul", rows, graph.constant(step.scale_))
    moved = graph.add("Add", scaled, graph.constant(step.min_))
    if not step.clip:
        return moved
    low, high = map(graph.constant, step.feature_range)
    return graph.add("Clip", moved, low, high)


def _normalizer(graph: Graph, step: Normalizer, rows: str) -> str:
    if step.norm != "l2":
        raise TypeError(f"to_onnx writes Normalizer(norm='l2'), not {step.norm!r}.")
    return graph.unit(rows)


def _pca(graph: Graph, step: PCA, rows: str) -> str:
    rows = graph.add("Sub", rows, graph.constant(step.mean_))
    rows = graph.add("MatMul", rows, graph.constant(step.components_.T))
    if step.whiten:
        rows = graph.add("Div", rows, graph.constant(np.sqrt(step.explained_variance_)))
    return rows


def _linear_probe(
    graph: Graph, probe: LinearProbe | LogisticRegression | PromptProbe, rows: str
) -> str:
    logits = graph.linear(rows, probe.coef_, probe.intercept_)
    return _from_logits(graph, logits, probe.classes_)


def _prompt_probe(graph: Graph, probe: PromptProbe, rows: str) -> str:
    return _linear_probe(graph, probe, graph.unit(rows))


def _nearest_vector(
    graph: Graph, head: PrototypeClassifier | SSTextClassifier, rows: str
) -> str:
    """Add a head whose logits are linear in rows of unit length.

    Its logits at both ends of each axis give the coefficients and the constant.
    """
    axes = np.eye(head.n_features_in_)
    ends = head.decision_function(np.vstack([axes, -axes]))
    plus, minus = ends.reshape(2, len(axes), -1)
    coef, constant = (plus - minus).T / 2, (plus + minus).mean(axis=0) / 2
    logits = graph.linear(graph.unit(rows), coef, constant)
    return _from_logits(graph, logits, head.classes_)


def _tip_adapter(graph: Graph, head: TipAdapterClassifier, rows: str) -> str:
    unit = graph.unit(rows)
    logits = []
    for learned in head._learned:  # one question, or one for each finding
        keys, beta = learned["keys"], learned["beta"]
        cosines = graph.linear(unit, keys, -np.ones(len(keys)))
        near = graph.add("Exp", graph.add("Mul", cosines, graph.constant(beta)))
        values = learned["alpha"] * learned["values"]
        votes = graph.add("MatMul", near, graph.constant(values))
        texts = graph.add("MatMul", unit, graph.constant(learned["weights"].T))
        answers = graph.add("Add", votes, texts)
        if values.shape[1] == 2:
            difference = graph.constant([[-1.0], [1.0]])
            answers = graph.add("MatMul", answers, difference)
        logits.append(answers)
    if len(logits) > 1:
        logits = [graph.add("Concat", *logits, axis=1)]
    return _from_logits(graph, logits[0], head.classes_)


def _from_logits(graph: Graph, logits: str, classes: NDArray[Any]) -> str:
    """Add probabilities in the shape of ``predict_proba``."""
    if classes.ndim == 2:
        return graph.add("Sigmoid", logits)
    if len(classes) > 2:
        return graph.add("Softmax", logits, axis=1)
    both = graph.add("Concat", graph.add("Neg", logits), logits, axis=1)
    return graph.add("Sigmoid", both)


def _zero_shot(graph: Graph, classifier: ZeroShotClassifier, rows: str) -> str:
    if classifier.ensemble == "max":
        raise TypeError(
            'to_onnx writes ensemble="embeddings" and "scores", not "max". Fit the '
            "ZeroShotClassifier with one of these."
        )
    width = classifier.n_features_in_
    vectors = classifier.class_embeddings_.reshape(-1, width).astype(np.float64)
    scores = graph.add("MatMul", graph.unit(rows), graph.constant(vectors.T))
    shape = classifier.class_embeddings_.shape[:-1]
    scores = graph.add("Reshape", scores, graph.constant([-1, *shape], np.int64))
    n_answers = shape[-1]
    if classifier.scoring != "cosine":
        scale = graph.constant(classifier.logit_scale_)
        bias = graph.constant(classifier.logit_bias_)
        scores = graph.add("Add", graph.add("Mul", scores, scale), bias)
    if classifier.scoring == "sigmoid":  # their logarithms
        scores = graph.add("Neg", graph.add("Softplus", graph.add("Neg", scores)))
    is_calibrated = classifier.calibrate is not None
    if is_calibrated:
        temperature = np.asarray(classifier.temperature_)[..., None]
        scores = graph.add("Div", scores, graph.constant(temperature))
        scores = graph.add("Add", scores, graph.constant(classifier.bias_))
    if classifier.scoring != "cosine" or is_calibrated:
        shares = graph.add("Softmax", scores, axis=-1)
    else:
        # (1 + (s - mean of the others) / 2) / n, with the mean as one product.
        others = (np.ones((n_answers, n_answers)) - np.eye(n_answers)) / (n_answers - 1)
        mean = graph.add("MatMul", scores, graph.constant(others))
        half = graph.add("Mul", graph.add("Sub", scores, mean), graph.constant(0.5))
        raised = graph.add("Add", half, graph.constant(1.0))
        shares = graph.add("Div", raised, graph.constant(float(n_answers)))
    if len(shape) == 1:
        return shares
    return graph.add("Gather", shares, graph.constant(1, np.int64), axis=2)


_TRANSFORMERS: dict[type, Callable[..., str]] = {
    StandardScaler: _standard_scaler,
    RobustScaler: _robust_scaler,
    MaxAbsScaler: _max_abs_scaler,
    MinMaxScaler: _min_max_scaler,
    Normalizer: _normalizer,
    PCA: _pca,
}
_CLASSIFIERS: dict[type, Callable[..., str]] = {
    LinearProbe: _linear_probe,
    LogisticRegression: _linear_probe,
    PromptProbe: _prompt_probe,
    PrototypeClassifier: _nearest_vector,
    SSTextClassifier: _nearest_vector,
    TipAdapterClassifier: _tip_adapter,
    ZeroShotClassifier: _zero_shot,
}
