"""Progress bars on long work."""

from __future__ import annotations

from tqdm.auto import tqdm

__all__ = ["progress_bar"]


def progress_bar(total: int, *, desc: str, unit: str, verbose: int) -> tqdm:
    """Return a tqdm bar, silent unless ``verbose`` is positive.

    Parameters
    ----------
    total : int
        Number of steps.
    desc : str
        Text left of the bar.
    unit : str
        Name of one step: ``"image"``.
    verbose : int
        0 shows nothing.

    Returns
    -------
    tqdm.tqdm
        To be used as a context manager and advanced with ``update``.
    """
    return tqdm(total=total, desc=desc, unit=unit, disable=not verbose)
