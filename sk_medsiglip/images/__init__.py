"""From what a user holds to RGB pixels at the model's size.

Public are the names in ``__all__``. The others that are imported here, under their own
names, serve the rooms above this one and may change. The files::

    _rows.py             the containers that X may be, one image a row
    _dataset_rows.py     ... a column of a Hugging Face data set
    _sources.py          what one item is: its name in messages, its path, its bytes
    _identity.py         what can be told of it unread, to know it again
    _read.py             read_image: which reader takes it
    _check.py            check_images: a look at all of them before the model
    _picture.py          one decoded image, and the step from stored values to RGB
    _intensity.py        Window, CTWindows, Percentiles: grey values to brightness
    _resize.py           the resize of the published results
    _fingerprint.py      what makes two images the same image

    _arrays.py           arrays: which shapes and types, and what their values mean
    _pillow.py           PNG, JPEG, TIFF, WebP, BMP, and images open in Pillow
    _pillow_bits.py      all the bits of theirs, where Pillow would keep eight
    _region.py           Region: a rectangle of an image
    _tiles.py            no more of a TIFF than a region needs
    _urls.py             images behind URLs; _url_errors.py, what goes wrong there
    _file.py             files whose sizes are believed, not their headers
    _decoding.py         what surrounds every call into a codec

    _dicom.py            DICOM: what a file holds, one frame of it as a picture
    _dicom_grey.py       what stored values mean, and how the tags show them
    _dicom_bits.py       which of their bits count
    _dicom_pixels.py     the pixels of one frame
    _dicom_codecs.py     which codec decodes which; _dicom_jpeg.py, JPEG only GDCM reads
    _jpeg_header.py      a compressed frame's header, judged before a codec sees it
    _dicom_mosaic.py     slices that lie side by side in one image
    _dicom_frames.py     frames of one file as slices
    _dicom_series.py     which files of a folder are one series, and in which order

    _study_rows.py       the containers whose every row is a study
    _study.py            one study, whatever holds it, as slices in order
    _study_folder.py     the files of a folder, by their content
    _read_study.py       read_study: the slices that the model is to see
    _series_slice.py     one slice, in the grey limits of its series
    _grey_range.py       these limits, over all slices
    _nifti.py            NIfTI volumes
    _lazy.py             an image inside something bigger, read when it is needed
    _held.py             big things kept in memory while they are in use
"""

from sk_medsiglip._public import name_by_room
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
from sk_medsiglip.images._sources import source_name as source_name
from sk_medsiglip.images._sources import source_path as source_path
from sk_medsiglip.images._study import Study as Study
from sk_medsiglip.images._study import StudyParts as StudyParts
from sk_medsiglip.images._study import open_study as open_study
from sk_medsiglip.images._study import study_parts as study_parts
from sk_medsiglip.images._study_rows import study_rows as study_rows
from sk_medsiglip.images._urls import redact as redact

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

name_by_room(globals())
