"""Deals groups out to parts so that every part gets its share of every count.

A group is a row of counts: its images, its positives of each label, and so on. The cost
is the squared difference between the share of a count that a part has and the share
that it should have, summed over counts and parts: a rare label weighs as much as a
common one, and one matrix product tells what every move of a group would change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A gain below this is rounding; groups that are alike must tie on every machine.
_DECIMALS = 11
_MOVES_A_GROUP = 4
_ROUNDS = 20
#: Pairs of parts that one round of swaps looks at, and groups of a part it looks at.
_PAIRS = 45
_CANDIDATES = 256

Counts = NDArray[np.float64]
Parts = NDArray[np.intp]


def deal_groups(
    counts: Counts, shares: Counts, rng: np.random.RandomState, *, at_random: bool
) -> Parts:
    """Return the part of every group; none is empty where there are enough groups.

    ``counts`` has a row for each group, its size first, and ``shares`` of the parts sum
    to 1. Groups begin in parts drawn at random, or the heaviest first, each in the part
    that needs it most. Moves and swaps are then made while they help: the result is
    near an optimum. 5,000 groups with 15 counts take about a second.
    """
    total = counts.sum(axis=0)
    groups = counts[:, total > 0] / total[total > 0]
    if at_random:
        part = rng.choice(len(shares), len(groups), p=shares)
    else:
        part = _deal_in_order(groups, shares)
    dealing = _Dealing(groups, shares, part)
    dealing.move()
    for _ in range(_ROUNDS):
        before = dealing.cost()
        dealing.swap(rng)
        dealing.move()
        if before - dealing.cost() < 1e-3 * before:
            break
    dealing.fill_empty()
    return dealing.part


def _deal_in_order(groups: Counts, shares: Counts) -> Parts:
    """Give each group, the heaviest first, to the part that it suits best."""
    weight = np.einsum("ij,ij->i", groups, groups)
    part = np.empty(len(groups), np.intp)
    off = np.repeat(-shares[:, None], groups.shape[1], axis=1)
    for i in np.argsort(-np.round(weight, _DECIMALS), kind="stable"):
        cost = (2 * (off @ groups[i]) + weight[i]) / shares
        part[i] = np.round(cost, _DECIMALS).argmin()
        off[part[i]] += groups[i]
    return part


class _Dealing:
    """Groups in parts, and the moves that make the cost smaller.

    ``groups`` are shares of all that is counted.
    """

    def __init__(self, groups: Counts, shares: Counts, part: Parts) -> None:
        self.groups = groups
        self.shares = shares
        self.part = part
        self.weight = np.einsum("ij,ij->i", groups, groups)
        self.members = np.bincount(part, minlength=len(shares))
        self.off = np.repeat(-shares[:, None], groups.shape[1], axis=1)
        np.add.at(self.off, part, groups)

    def cost(self) -> float:
        """Return the cost."""
        return float(((self.off**2).sum(axis=1) / self.shares).sum())

    def move(self) -> None:
        """Move the group that gains most, until none gains."""
        everyone = np.arange(len(self.groups))
        products = self.groups @ self.off.T
        for _ in range(_MOVES_A_GROUP * len(self.groups)):
            change = (2 * products + self.weight[:, None]) / self.shares
            # Its place in the part where it is: as if it came, and had not been there.
            here = change[everyone, self.part]
            left = here - 2 * self.weight / self.shares[self.part]
            change -= left[:, None]
            change[everyone, self.part] = 0.0
            best = int(np.round(change, _DECIMALS).argmin())
            group, to = divmod(best, len(self.shares))
            if change[group, to] > -(10.0**-_DECIMALS):
                return
            come_from = self.part[group]
            self._put(group, to)
            along = self.groups @ self.groups[group]
            products[:, come_from] -= along
            products[:, to] += along

    def swap(self, rng: np.random.RandomState) -> None:
        """Swap groups between pairs of parts, the most unlike pairs first."""
        cost = (self.off**2).sum(axis=1) / self.shares
        first, second = np.triu_indices(len(self.shares), 1)
        order = np.argsort(-np.round(cost[first] + cost[second], _DECIMALS))
        for pair in order[:_PAIRS]:
            self._swap_between(int(first[pair]), int(second[pair]), rng)

    def _swap_between(self, a: int, b: int, rng: np.random.RandomState) -> None:
        of_a, of_b = self._candidates(a, rng), self._candidates(b, rng)
        if not of_a.size or not of_b.size:
            return
        per_square = 1 / self.shares[a] + 1 / self.shares[b]
        distance = self.weight[of_a][:, None] + self.weight[of_b]
        distance -= 2 * (self.groups[of_a] @ self.groups[of_b].T)
        pull = self._pull(a, b)
        gain_of_a, gain_of_b = self.groups[of_a] @ pull, self.groups[of_b] @ pull
        change = gain_of_a[:, None] - gain_of_b + per_square * distance
        partner = np.round(change, _DECIMALS).argmin(axis=1)
        best = change[np.arange(len(of_a)), partner]
        # Each swap moves the parts, so that the next one is judged anew.
        for i in np.argsort(np.round(best, _DECIMALS), kind="stable"):
            if best[i] > -(10.0**-_DECIMALS):
                return
            one, other = of_a[i], of_b[partner[i]]
            if self.part[other] != b:
                continue
            step = self.groups[one] - self.groups[other]
            now = step @ self._pull(a, b) + per_square * (step @ step)
            if now < -(10.0**-_DECIMALS):
                self._put(one, b)
                self._put(other, a)

    def _candidates(self, part: int, rng: np.random.RandomState) -> Parts:
        members = np.flatnonzero(self.part == part)
        if len(members) <= _CANDIDATES:
            return members
        return rng.choice(members, _CANDIDATES, replace=False)

    def _pull(self, a: int, b: int) -> Counts:
        """Return how the cost bends when something goes from ``a`` to ``b``."""
        return 2 * (self.off[b] / self.shares[b] - self.off[a] / self.shares[a])

    def _put(self, group: int, to: int) -> None:
        come_from = self.part[group]
        self.off[come_from] -= self.groups[group]
        self.off[to] += self.groups[group]
        self.members[come_from] -= 1
        self.members[to] += 1
        self.part[group] = to

    def fill_empty(self) -> None:
        """Give an empty part the lightest group of a part that has several."""
        for to in np.flatnonzero(self.members == 0):
            spare = np.flatnonzero(self.members[self.part] > 1)
            if spare.size:
                self._put(spare[self.weight[spare].argmin()], int(to))
