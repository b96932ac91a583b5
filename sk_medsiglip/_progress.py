"""Progress bars for long work."""

from __future__ import annotations

from tqdm.auto import tqdm


def progress_bar(
    total: int, *, desc: str, unit: str, verbose: int, done: int = 0
) -> tqdm:
    """Return a tqdm bar, hidden unless ``verbose`` is positive and work is left.

    ``done`` steps need no work, and are not included in the speed.
    """
    nothing_to_show = not verbose or done == total
    return tqdm(
        total=total, initial=done, desc=desc, unit=unit, disable=nothing_to_show
    )
