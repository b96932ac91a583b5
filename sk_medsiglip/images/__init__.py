"""Read images of any kind into RGB pixels at the size of the model.

The names in ``__all__`` are public. The other imports serve the rooms above this one
and may change. The files::

    _rows.py             the containers accepted as X, one image or study per row
    _sources.py          the name, path, identity and bytes of one item
    _kinds.py            the kind of a file, by its first bytes
    _read.py             read_image: the choice of the reader
    _check.py            check_images: a check of all images before embedding
    _decoded_image.py    one decoded image, and its conversion to RGB
    _intensity.py        Window, CTWindows, Percentiles: grey values to brightness
    _resize.py           the resize of the published results
    _decoding.py         errors and warnings of codecs and file systems
    _lazy.py             an image inside something bigger, read when needed

    _arrays.py           arrays: shapes, types, and the meaning of their values
    _pillow.py           PNG, JPEG, TIFF, WebP, BMP, and images open in Pillow
    _region.py           Region: a rectangle of an image
    _slide_tiles.py      tiles_from_h5: the tiles chosen by a tiling tool
    _tiles.py            the tiles of a TIFF file that a region needs
    _urls.py             images behind URLs

    _dicom.py            one frame of a DICOM file, as an image or as a slice
    _dicom_grey.py       the meaning of stored values, and their display by the tags
    _dicom_pixels.py     the pixels of one frame, which may be a mosaic of slices
    _dicom_codecs.py     codecs for compressed pixels, and the stored bits
    _dicom_jpeg.py       JPEG headers, checked before a codec sees them; GDCM
    _dicom_series.py     the series of a study, and the order of their slices

    _study.py            one study of any kind, as slices in order
    _read_study.py       read_study: the slices that the model sees
    _grey_range.py       a slice of a series, in the grey limits of the series
    _nifti.py            NIfTI volumes
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.images._check import check_images
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
from sk_medsiglip.images._rows import study_rows as study_rows
from sk_medsiglip.images._slide_tiles import tiles_from_h5
from sk_medsiglip.images._sources import describe as describe
from sk_medsiglip.images._sources import image_fingerprint as image_fingerprint
from sk_medsiglip.images._sources import source_identity as source_identity
from sk_medsiglip.images._sources import source_name as source_name
from sk_medsiglip.images._sources import source_path as source_path
from sk_medsiglip.images._study import Study as Study
from sk_medsiglip.images._study import StudyParts as StudyParts
from sk_medsiglip.images._study import open_study as open_study
from sk_medsiglip.images._study import study_parts as study_parts
from sk_medsiglip.images._urls import redact as redact
from sk_medsiglip.images._urls import without_signature as without_signature

__all__ = [
    "VOI",
    "CTWindows",
    "Percentiles",
    "Region",
    "Window",
    "check_images",
    "read_image",
    "read_study",
    "tiles_from_h5",
]

name_by_room(globals())
