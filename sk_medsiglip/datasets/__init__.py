"""Data for examples, tests and benchmarks: drawn phantoms and a public data set.

::

    _phantoms.py         make_chest_phantoms: patients, views, labels, captions
    _anatomy.py          draws the chest
    _findings.py         draws findings, and says where they lie
    _captions.py         what is true of a phantom, as facts and as a report
    _export.py           write_phantoms: PNG and DICOM files with a labels table
    _pneumonia_mnist.py  fetch_pneumonia_mnist: small real X-rays
"""

from __future__ import annotations

from sk_medsiglip.datasets._export import write_phantoms
from sk_medsiglip.datasets._phantoms import make_chest_phantoms
from sk_medsiglip.datasets._pneumonia_mnist import fetch_pneumonia_mnist

__all__ = ["fetch_pneumonia_mnist", "make_chest_phantoms", "write_phantoms"]
