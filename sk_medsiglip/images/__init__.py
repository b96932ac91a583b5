"""From what a user holds to RGB pixels at the model's size.

Public are the names in ``__all__``. The others that are imported here, under their own
names, serve the rooms above this one and may change.
"""

from sk_medsiglip.images._check import check_images
from sk_medsiglip.images._fingerprint import image_fingerprint as image_fingerprint
from sk_medsiglip.images._identity import source_identity as source_identity
from sk_medsiglip.images._intensity import VOI, CTWindows, Percentiles, Window
from sk_medsiglip.images._intensity import recipe_key as recipe_key
from sk_medsiglip.images._intensity import validate_frame as validate_frame
from sk_medsiglip.images._intensity import validate_intensity as validate_intensity
from sk_medsiglip.images._read import MAX_PIXELS as MAX_PIXELS
from sk_medsiglip.images._read import read_image
from sk_medsiglip.images._read import read_resized as read_resized
from sk_medsiglip.images._read_study import HOUNSFIELD_WARNING as HOUNSFIELD_WARNING
from sk_medsiglip.images._read_study import PLANES as PLANES
from sk_medsiglip.images._read_study import read_study
from sk_medsiglip.images._region import Region
from sk_medsiglip.images._resize import pad_to_square as pad_to_square
from sk_medsiglip.images._resize import resize_bilinear as resize_bilinear
from sk_medsiglip.images._rows import image_rows as image_rows
from sk_medsiglip.images._sources import source_path as source_path
from sk_medsiglip.images._study import Study as Study
from sk_medsiglip.images._study import StudyParts as StudyParts
from sk_medsiglip.images._study import open_study as open_study
from sk_medsiglip.images._study import study_parts as study_parts
from sk_medsiglip.images._study_rows import study_rows as study_rows

__all__ = [
    "VOI",
    "CTWindows",
    "Percentiles",
    "Region",
    "Window",
    "check_images",
    "read_image",
    "read_study",
]
