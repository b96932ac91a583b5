"""``trusted_types``: the list that a ``.skops`` file is loaded with."""

from __future__ import annotations

from typing import Any

from sk_medsiglip._optional import import_optional


def trusted_types(estimator: Any) -> list[str]:
    """List the types for skops to trust when it loads an estimator.

    A ``.skops`` file holds numbers and names of types, and skops makes only types that
    it knows or is told to trust. MLflow wants to be told when a model is logged.

    Parameters
    ----------
    estimator : estimator
        An estimator or pipeline that you have made or loaded yourself. Do not use this
        on a file from elsewhere: look at ``skops.io.get_untrusted_types(file=...)``.

    Returns
    -------
    list of str
        Sorted full names, such as ``"sk_medsiglip.heads.LinearProbe"``. Types of
        scikit-learn and numpy that skops trusts by itself are not among them.

    Raises
    ------
    MissingDependencyError
        If skops is not installed.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
    >>> from sk_medsiglip.serving import trusted_types
    >>> trusted_types(make_pipeline(MedSigLIPEmbedder("demo"), LinearProbe()))
    ['sk_medsiglip.embedding.MedSigLIPEmbedder', 'sk_medsiglip.heads.LinearProbe']
    """
    skops = import_optional("skops.io", extra="skops", purpose="trusted_types")
    return sorted(skops.get_untrusted_types(data=skops.dumps(estimator)))
