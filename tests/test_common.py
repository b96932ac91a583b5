"""scikit-learn's own checks on every estimator, and the image version of the rest.

The generator of checks yields one check for estimators that take no 2-D array, so the
embedders run those checks that need no data by name; what needs data is said again for
images in test_embedding.py.
"""

import numpy as np
import pytest
from sklearn.base import _fit_context, clone
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data

from sk_medsiglip import (
    BagProbe,
    LinearProbe,
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    PromptProbe,
    PrototypeClassifier,
    SSTextClassifier,
    TipAdapterClassifier,
    ZeroShotClassifier,
    make_zero_shot_pipeline,
)
from sk_medsiglip.prompts import ClassVectors, Question

# Checks that cannot hold, each with its reason and where the same thing is tested.
EXPECTED_FAILED_CHECKS = {
    "MedSigLIPEmbedder": {
        "check_get_feature_names_out_error": (
            "names need no fit: test_feature_names_without_fit_or_weights"
        ),
    },
    "MedSigLIPTextEmbedder": {
        "check_get_feature_names_out_error": (
            "names need no fit: test_feature_names_without_fit_or_weights"
        ),
    },
    "LabelledZeroShot()": {},
    "LabelledZeroShot(ensemble='max', scoring='cosine')": {},
    "LabelledZeroShot(calibrate='temperature_bias')": {},
    "LabelledZeroShot(scoring='sigmoid')": {},
}

_SEVERAL_LABELS = {
    "check_classifier_multioutput": (
        "classes_ of several labels has a row each, for scikit-learn's scorers and "
        "cross_val_predict; the check takes it for one pair that all labels share: "
        "test_several_labels_by_every_head"
    ),
}
for _head in (
    "LinearProbe",
    "PromptProbe",
    "SSTextClassifier",
    "TipAdapterClassifier",
    "PrototypeClassifier",
):
    EXPECTED_FAILED_CHECKS[_head] = _SEVERAL_LABELS

EXPECTED_FAILED_CHECKS["BagsOfOne"] = {
    **_SEVERAL_LABELS,
    "check_sample_weight_equivalence_on_dense_data": (
        "bags are float32, and the check compares to 1e-7: test_bag_probe.py, "
        "test_weights_are_repeats_and_zero_is_absence"
    ),
}

DATA_FREE_CHECKS = [
    "check_do_not_raise_errors_in_init_or_set_param",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_feature_names_out_error",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]


class LabelledZeroShot(ZeroShotClassifier):
    """Zero-shot on whatever data a check makes up.

    The checks vary the classes and the number of columns, which prompts and a text
    tower fix. Only these two come from the data here; all else is the real class.
    """

    def __init__(
        self,
        prompts=None,
        *,
        model="demo",
        scoring="softmax",
        ensemble="embeddings",
        calibrate=None,
    ):
        super().__init__(
            prompts,
            model=model,
            scoring=scoring,
            ensemble=ensemble,
            calibrate=calibrate,
        )

    def _read_prompts(self, y):
        labels = np.unique(y) if y is not None else np.array([0, 1])
        if len(labels) < 2:
            raise ValueError("Classifier can't train when only one class is present.")
        texts = tuple((f"class {label}",) for label in labels)
        return Question(labels, texts, is_pairs=False)

    def _encode_prompts(self, question):
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(len(question.texts), self.n_features_in_))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors.astype(np.float32)
        return ClassVectors(vectors, 10.0, -1.0, vectors, np.arange(len(vectors)))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        tags.target_tags.required = True
        return tags


@parametrize_with_checks(
    [
        LabelledZeroShot(),
        LabelledZeroShot(scoring="sigmoid"),
        LabelledZeroShot(scoring="cosine", ensemble="max"),
        LabelledZeroShot(calibrate="temperature_bias"),
    ],
    expected_failed_checks=lambda est: EXPECTED_FAILED_CHECKS[repr(est)],
    xfail_strict=True,
)
@pytest.mark.filterwarnings("ignore:labels and scores contradict")
def test_zero_shot_passes_sklearn_checks(estimator, check):
    check(estimator)


TYPES = [np.float64, np.float32]


class BagsOfOne(BagProbe):
    """Bags of one instance from the rows that a check makes up."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, *, sample_weight=None, groups=None):
        """Check rows as scikit-learn does, and make each of them a bag."""
        rows = validate_data(self, X, dtype=TYPES)
        return self._fit(rows[:, None], y, sample_weight, groups)

    def _check(self, X):
        return validate_data(self, X, dtype=TYPES, reset=False)[:, None]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = LinearProbe().__sklearn_tags__().input_tags
        return tags


@parametrize_with_checks(
    [
        LinearProbe(),
        BagsOfOne(),
        LinearProbe(5, cv=3, refit=False, class_weight="balanced"),
        PromptProbe(),
        SSTextClassifier(),
        TipAdapterClassifier(),
        TipAdapterClassifier(fine_tune=True, random_state=0),
        PrototypeClassifier(),
    ],
    expected_failed_checks=lambda est: EXPECTED_FAILED_CHECKS.get(
        type(est).__name__, {}
    ),
    xfail_strict=True,
)
def test_heads_pass_sklearn_checks(estimator, check):
    if "sample_weight_equivalence" in str(check) and hasattr(estimator, "tol"):
        # To seven digits, as scikit-learn asks: solved to the last one. It has settings
        # of its own for some of its estimators in this check, too.
        estimator.set_params(tol=1e-17)
    check(estimator)


def named_check(name):
    matches = [
        getattr(estimator_checks, found)
        for found in dir(estimator_checks)
        if found.startswith(name)
    ]
    assert matches, f"scikit-learn has no check named {name}"
    return matches[0]


@pytest.mark.parametrize("name", DATA_FREE_CHECKS)
@pytest.mark.parametrize("estimator", [MedSigLIPEmbedder, MedSigLIPTextEmbedder])
def test_embedders_pass_data_free_checks(estimator, name, request):
    reason = EXPECTED_FAILED_CHECKS[estimator.__name__].get(name)
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    named_check(name)(estimator.__name__, estimator("demo"))


@pytest.mark.parametrize(
    "estimator",
    [
        MedSigLIPEmbedder(),
        MedSigLIPTextEmbedder(),
        ZeroShotClassifier({"a": "one", "b": "two"}),
        make_zero_shot_pipeline({"a": "one", "b": "two"}),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_defaults_are_medsiglip_and_clone(estimator):
    params = clone(estimator).get_params()
    models = [value for name, value in params.items() if name.endswith("model")]
    assert set(models) == {"google/medsiglip-448"}
