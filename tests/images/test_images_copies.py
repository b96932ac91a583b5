"""Copies of one DICOM file in a study count once."""

import numpy as np
from study_files import dicom, geometry, marked, read_numbers

from sk_medsiglip.images import read_study


def slices(**tags):
    return [dicom(v, **geometry(i), **tags) for i, v in enumerate(marked())]


def write(folder, contents):
    for place, content in enumerate(contents):
        (folder / str(place)).write_bytes(content)
    return folder


def test_copies_count_once(tmp_path):
    files = slices()
    folder = write(tmp_path, [*files, *[files[3]] * 20, files[0]])
    assert read_numbers(folder, n_slices=None) == list(range(7))
    listed = [*files, files[3]]
    assert read_numbers(listed, n_slices=None) == list(range(7))


def test_one_identifier_for_all_files_is_not_a_copy(tmp_path):
    """Some programs that anonymise give all files one SOPInstanceUID."""
    folder = write(tmp_path, slices(SOPInstanceUID="1.2.3"))
    assert read_numbers(folder) == list(range(7))
    (tmp_path / "n").mkdir()
    (tmp_path / "v").mkdir()
    views = [dicom(v, SOPInstanceUID="1.2.3", Modality="CR") for v in marked()]
    assert read_numbers(write(tmp_path / "v", views)) == list(range(7))
    numbered = [
        dicom(v, InstanceNumber=i, SOPInstanceUID="1.2.3")
        for i, v in enumerate(marked())
    ]
    assert read_numbers(write(tmp_path / "n", numbered)) == list(range(7))


def test_files_without_identifiers_are_all_kept(tmp_path):
    same = [dicom(np.zeros((4, 4), np.uint16), SOPInstanceUID=None)] * 3
    assert len(read_study(write(tmp_path, same))) == 3
