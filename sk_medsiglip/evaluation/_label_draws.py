"""Which images would have been labelled, had there been labels for only some."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._splits import group_numbers

__all__ = ["draw_orders", "teaches"]


def draw_orders(
    states: NDArray[np.bool_],
    n_repeats: int,
    *,
    groups: NDArray[np.generic] | None,
    random_state: int,
) -> list[NDArray[np.intp]]:
    """Draw orders in which the rows are labelled; the first n of one are a draw of n.

    So larger draws hold the smaller ones, as a collection that is labelled further.
    First come rows that show something not seen so far, the rarest before all, until
    all has been seen that there is; then patient after patient, at random.

    Parameters
    ----------
    states : ndarray of bool, shape (n_samples, n_states)
        What a row shows: one of several classes; or of each finding that it is there,
        or that it is not.
    n_repeats : int
        Orders.
    groups : ndarray of shape (n_samples,) or None
        Patients; None takes each row as one.
    random_state : int
        Same number, same orders.

    Returns
    -------
    list of ndarray of shape (n_samples,)
    """
    n_samples = len(states)
    member = group_numbers(groups, n_samples)
    n_groups = int(member.max()) + 1
    by_rarity = np.argsort(states.sum(axis=0), kind="stable")
    by_rarity = by_rarity[states[:, by_rarity].any(axis=0)]
    orders = []
    for repeat in range(n_repeats):
        rng = np.random.default_rng([random_state, repeat])
        # Rows of a patient lie together, in an order of their own.
        shuffled = rng.permutation(n_samples)
        rank = rng.permutation(n_groups)
        order = shuffled[np.argsort(rank[member[shuffled]], kind="stable")]
        first: list[int] = []
        seen = np.zeros(states.shape[1], dtype=bool)
        for state in by_rarity:
            if not seen[state]:
                row = int(order[states[order, state].argmax()])
                first.append(row)
                seen |= states[row]
        rest = order[~np.isin(order, first)]
        orders.append(np.concatenate([np.array(first, np.intp), rest]))
    return orders


def teaches(states: NDArray[np.bool_], kind: str) -> NDArray[np.bool_]:
    """Tell which labels a draw can teach: those that it shows both with and without.

    Parameters
    ----------
    states : ndarray of bool, shape (n_drawn, n_states)
        Of the rows of a draw.
    kind : {"binary", "classes", "findings"}
        As :class:`Truth` has it.

    Returns
    -------
    ndarray of bool, shape (n_labels,)
        Of several classes those that are there, if there are two.
    """
    shown = np.asarray(states.any(axis=0))
    if kind == "findings":
        return np.asarray(shown.reshape(2, -1).all(axis=0))
    two = shown.sum() > 1
    return np.array([two]) if kind == "binary" else shown & two
