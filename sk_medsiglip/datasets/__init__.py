"""Data: drawn phantoms, public data sets, and a user's own tables and folders.

The names in ``__all__`` are public; the other imports serve the command line and may
change. The files::

    _phantoms.py         make_chest_phantoms: patients, views, labels, captions
    _anatomy.py          the drawing of the chest
    _findings.py         the drawing of findings, and their wording in reports
    _export.py           write_phantoms: PNG and DICOM files with a table of labels
    _labels_csv.py       load_labels_csv, load_image_folder: a user's own collection
    _tables.py           the reading of tables and folders
    _medmnist.py         fetch_medmnist, fetch_pneumonia_mnist: real images
    _download.py         the download of a file
"""

from __future__ import annotations

from sk_medsiglip._public import name_by_room
from sk_medsiglip.datasets._export import write_phantoms
from sk_medsiglip.datasets._labels_csv import load_image_folder, load_labels_csv
from sk_medsiglip.datasets._medmnist import fetch_medmnist, fetch_pneumonia_mnist
from sk_medsiglip.datasets._phantoms import make_chest_phantoms
from sk_medsiglip.datasets._tables import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from sk_medsiglip.datasets._tables import Meaning as Meaning
from sk_medsiglip.datasets._tables import check_columns as check_columns
from sk_medsiglip.datasets._tables import class_name as class_name
from sk_medsiglip.datasets._tables import list_images as list_images
from sk_medsiglip.datasets._tables import locate as locate
from sk_medsiglip.datasets._tables import parse_names as parse_names
from sk_medsiglip.datasets._tables import parse_numbers as parse_numbers
from sk_medsiglip.datasets._tables import read_binary as read_binary
from sk_medsiglip.datasets._tables import read_strings as read_strings
from sk_medsiglip.datasets._tables import read_table as read_table
from sk_medsiglip.datasets._tables import some_values as some_values
from sk_medsiglip.datasets._tables import usual_path_column as usual_path_column

__all__ = [
    "fetch_medmnist",
    "fetch_pneumonia_mnist",
    "load_image_folder",
    "load_labels_csv",
    "make_chest_phantoms",
    "write_phantoms",
]

name_by_room(globals())
