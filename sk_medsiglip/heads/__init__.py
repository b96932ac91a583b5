"""Light classifiers on embeddings, and the solver that makes hundreds of them cheap.

::

    _linear_probe.py     LinearProbe: logistic regression, its penalty chosen
    _bag_probe.py        BagProbe: the same for bags, instances pooled softly
    _prompt_probe.py     PromptProbe: the same, penalised for leaving the prompts
    _nearest_vector.py   SSTextClassifier and PrototypeClassifier: one vector a class
    _tip_adapter.py      TipAdapterClassifier: zero-shot logits and a cache of shots
    _explain.py          explain_head: which prompts lie near to a head's weights

    _logistic_path.py    fit_logistic_path: all folds, penalties and labels of one X
    _batched_lbfgs.py    steps all of these problems at once
    _device.py           on numpy, or on a torch device
    _logistic_loss.py    their losses, elementwise
    _eigenbasis.py       coordinates in which they are small and nearly diagonal

    _bag_space.py        bags in whitened coordinates, read piece by piece
    _bag_loss.py         the losses of bags from logits of their instances

    _chosen_penalty.py   the base of the probes: folds, scores, the refit
    _few_shot.py         the base of heads that know prompts; _anchors.py, the prompts
    _probes_together.py  fit_probes: linear probes of many draws from one X
    _scores.py           scores on rows that folds leave out
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.heads._bag_probe import BagProbe
from sk_medsiglip.heads._explain import explain_head
from sk_medsiglip.heads._linear_probe import LinearProbe
from sk_medsiglip.heads._logistic_path import LogisticPath, fit_logistic_path
from sk_medsiglip.heads._nearest_vector import PrototypeClassifier, SSTextClassifier
from sk_medsiglip.heads._probes_together import fit_probes
from sk_medsiglip.heads._prompt_probe import PromptProbe
from sk_medsiglip.heads._tip_adapter import TipAdapterClassifier

__all__ = [
    "BagProbe",
    "LinearProbe",
    "LogisticPath",
    "PromptProbe",
    "PrototypeClassifier",
    "SSTextClassifier",
    "TipAdapterClassifier",
    "explain_head",
    "fit_logistic_path",
    "fit_probes",
]

name_by_room(globals())
