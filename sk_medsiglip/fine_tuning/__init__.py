"""Fine-tuning of the encoder on images with texts or classes.

The public names are ``MedSigLIPFineTuner`` and ``Augmentation``. torch, transformers
and peft are imported when training starts::

    _fine_tuner.py    MedSigLIPFineTuner, the estimator
    _fitted.py        its methods after fit: embeddings, classes, saved folders
    _settings.py      its parameters, their joint meaning, and the pace of a run
    _training.py      one run, from settings and data to tuned weights
    _examples.py      images, texts or labels, and patients, checked and split
    _texts.py         texts that are true of each row, texts whose scores are kept
    _inputs.py        pixels of all images; vectors of a tower that is not trained
    _augmentation.py  random changes of training images
    _batches.py       the order of rows, and the tensors of a batch
    _network.py       towers, classifier and their loss; the weights that are trained
    _losses.py        the sigmoid loss of pairs, and cross-entropies
    _trainer.py       transformers' Trainer, with our loss, order and checkpoints
    _validation.py    scores on the validation split
    _run_folder.py    the facts that identify a run, and checkpoints to resume from
    _processes.py     the processes of a launcher
    _tuned.py         tuned weights as a folder that the encoder loads
    _save.py          saved folders, with a model card: save, load and merge
    _as_json.py       parameters and attributes as JSON
    _history_plot.py  the plot of a run
"""

from __future__ import annotations

from sk_medsiglip._public import name_by_room
from sk_medsiglip.fine_tuning._augmentation import Augmentation
from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["Augmentation", "MedSigLIPFineTuner"]

name_by_room(globals())
