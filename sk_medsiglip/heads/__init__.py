"""Light classifiers on embeddings, and the solver that fits hundreds of them at once.

The files::

    _linear_probe.py     LinearProbe: logistic regression with a penalty chosen by CV
    _bag_probe.py        BagProbe: the same for bags, with soft pooling of instances
    _prompt_probe.py     PromptProbe: the same, penalised for departing from prompts
    _nearest_vector.py   SSTextClassifier and PrototypeClassifier: one vector per class
    _tip_adapter.py      TipAdapterClassifier: zero-shot logits and a cache of shots
    _explain.py          explain_head: the prompts closest to the weights of a head

    _logistic_path.py    fit_logistic_path: all folds, penalties and labels of one X
    _batched_lbfgs.py    L-BFGS on all of these problems at once
    _device.py           the solver on numpy, or on a torch device
    _logistic_loss.py    the losses of the problems, elementwise
    _eigenbasis.py       coordinates in which the problems are small and nearly diagonal

    _bag_space.py        bags in whitened coordinates, read piece by piece
    _bag_loss.py         the losses of bags from logits of their instances

    _chosen_penalty.py   base class of the probes: folds, scores, the refit
    _few_shot.py         base class of heads with prompts; _anchors.py, the prompts
    _probes_together.py  fit_probes: linear probes of many subsets of one X
    _scores.py           scores on rows left out by folds
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
