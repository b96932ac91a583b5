"""Progress bars on long work."""

from __future__ import annotations

from tqdm.auto import tqdm


def progress_bar(
    total: int, *, desc: str, unit: str, verbose: int, done: int = 0
) -> tqdm:
    """Return a tqdm bar, silent unless ``verbose`` is positive and work is left.

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
    done : int, default=0
        Steps that need no work; they do not count in the speed shown.

    Returns
    -------
    tqdm.tqdm
        To be used as a context manager and advanced with ``update``.
    """
    nothing_to_show = not verbose or done == total
    return tqdm(
        total=total, initial=done, desc=desc, unit=unit, disable=nothing_to_show
    )
