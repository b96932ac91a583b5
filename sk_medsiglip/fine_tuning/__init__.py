"""Fine-tuning: images with texts or classes to a better encoder.

Public are ``MedSigLIPFineTuner`` and ``Augmentation``. torch, transformers and peft are
imported when something is trained::

    _fine_tuner.py        MedSigLIPFineTuner, the estimator
    _choices.py           what its parameters mean together
    _material.py          what it is given, checked: images, texts or labels, patients
    _pairs.py             which texts are true of which row
    _kept.py              which texts must keep the scores they give the images
    _patient_split.py     who validates: whole patients
    _image_bank.py        all images, read once
    _training.py          one run, from there to tuned weights
    _pace.py              how far and how fast it goes
    _this_run.py          what decides it, and its folder
    _building.py          the checkpoint's towers, prepared for what is to be trained
    _network.py           towers, classifier and their loss, as one module
    _losses.py            the sigmoid loss of pairs, over processes too; cross-entropies
    _trainable.py         which weights are trained, and how fast each moves
    _batches.py           which rows make a batch, and what of them the network gets
    _inputs.py            pixels and tokens, or what a tower that stays would give
    _augmentation.py      mild changes of pictures
    _trainer.py           transformers' Trainer, with our loss, order and checkpoints
    _validation_scores.py how well the network does on the validation split
    _run_folder.py        what a run is a run of, and the checkpoints it goes on from
    _trained_weights.py   a checkpoint's file of trained weights
    _processes.py         the other processes of a launcher
    _quiet.py             the process is left as it was: logs, random numbers
    _memory.py            what to change when memory runs out
    _keeping.py           from a trained network to files
    _adapter_files.py     tuned weights as a folder that the encoder loads
    _save.py, _saved.py   save, load and merge; parameters as JSON
    _model_card.py        the README.md beside saved weights
    _scratch.py           folders of what is not finished, swept after a kill
    _answers.py           from embeddings to classes
    _history_plot.py      the picture of a run
"""

from __future__ import annotations

from sk_medsiglip._public import name_by_room
from sk_medsiglip.fine_tuning._augmentation import Augmentation
from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["Augmentation", "MedSigLIPFineTuner"]

name_by_room(globals())
