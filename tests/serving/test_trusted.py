"""Lists of types with which a saved pipeline is loaded."""

import skops.io
from sklearn.pipeline import make_pipeline

from sk_medsiglip import ConformalZeroShot, LinearProbe, MedSigLIPEmbedder
from sk_medsiglip.serving import trusted_types


def test_a_file_loads_with_the_list_and_with_nothing_less(probe, tmp_path):
    types = trusted_types(probe)
    assert types == [
        "sk_medsiglip.embedding.MedSigLIPEmbedder",
        "sk_medsiglip.heads.LinearProbe",
    ]
    skops.io.dump(probe, tmp_path / "model.skops")
    loaded = skops.io.load(tmp_path / "model.skops", trusted=types)
    assert loaded[-1].C_.tolist() == probe[-1].C_.tolist()
    assert skops.io.get_untrusted_types(file=tmp_path / "model.skops") == types


def test_what_is_inside_is_listed_too():
    inner = make_pipeline(MedSigLIPEmbedder("demo"), LinearProbe())
    assert "sk_medsiglip.zero_shot.ConformalZeroShot" in trusted_types(
        ConformalZeroShot(inner)
    )
