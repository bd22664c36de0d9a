"""Boosters of shallow trees with few thresholds, as XGBoost grows them from histograms.

Each tree is laid out as a complete one, so that a node's place tells where its
children are. Each threshold is compared once for a row, not once a node that
has it. Of many rows, 64 are one word of bits, and go through all nodes of a tree
together without a single branch (after Lucchese et al. 2015, "QuickScorer").
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from housing_lib.contract import Floats, Singles
from housing_lib.jit import kernel

DEEPEST = 10
WORD = 64
# So many rows are worth the work for a whole word.
FEWEST_TOGETHER = 24
# Trees that one row walks side by side: each step of a single walk waits for memory.
ABREAST = 12
# Rows that go through the same trees one after the other, while these are at hand.
FEW = 16


@dataclass(frozen=True)
class Shallow:
    """The mean of boosters, each a sum in float32 of its trees in their order.

    Parameters
    ----------
    thresholds
        Of each feature in ascending order, filled up by infinity, at least one of it.
    splits
        What each node asks, as a place among all thresholds: the row goes left if its
        feature is below. Shape (trees, places); the root has place 1, and the children of
        n have 2n and 2n + 1. Below a leaf, all rows go left.
    leaves
        The values below the last nodes, shape (trees, places).
    starts, ends
        What the sum of each booster begins with, and where its trees end; their number
        is a multiple of `ABREAST`, the last ones adding nothing.
    doubles
        Whether the mean is taken in double precision.
    """

    thresholds: Singles
    splits: npt.NDArray[np.uint16]
    leaves: Singles
    starts: Singles
    ends: npt.NDArray[np.int64]
    doubles: bool

    def predict(self, matrix: Floats) -> npt.NDArray[Any]:
        """The value of each row of the model matrix, in the precision of the library."""
        rows = np.ascontiguousarray(matrix, dtype="f4")
        walk = walk_together if len(rows) >= FEWEST_TOGETHER else walk_few
        sums = walk(self.thresholds, self.splits, self.leaves, self.starts, self.ends, rows)
        if self.doubles:
            sums = sums.astype("f8")
        # The same as `mean`, which takes twice the time for a single row.
        mean: npt.NDArray[Any] = np.add.reduce(sums, axis=1) / len(self.ends)
        return mean


@kernel
def walk_few(thresholds, splits, leaves, starts, ends, rows):  # type: ignore[no-untyped-def]
    """The sums of each booster's trees for each row: some trees of one row after the other."""
    sums, places = np.empty((len(rows), len(ends)), np.float32), splits.shape[1]
    passed = np.empty((min(len(rows), FEW), thresholds.size), np.uint8)
    at = np.empty(ABREAST, np.int64)
    for begin in range(0, len(rows), FEW):
        some = rows[begin : begin + FEW]
        for row in range(len(some)):
            compare(thresholds, some[row], passed[row])
        first = 0
        for booster in range(len(ends)):
            own = sums[begin : begin + FEW, booster]
            own[:] = starts[booster]
            for tree in range(first, ends[booster], ABREAST):
                for row in range(len(some)):
                    at[:] = 1
                    while at[0] < places:
                        for k in range(ABREAST):
                            at[k] = 2 * at[k] + passed[row, splits[tree + k, at[k]]]
                    for k in range(ABREAST):
                        own[row] += leaves[tree + k, at[k] - places]
            first = ends[booster]
    return sums


@kernel
def compare(thresholds, row, passed):  # type: ignore[no-untyped-def]
    """Fill in whether a row has passed each threshold."""
    width = thresholds.shape[1]
    for feature in range(len(thresholds)):
        value, own = row[feature], thresholds[feature]
        mine = passed[feature * width : (feature + 1) * width]
        for k in range(width):
            mine[k] = value >= own[k]


@kernel
def walk_together(thresholds, splits, leaves, starts, ends, rows):  # type: ignore[no-untyped-def]
    """The sums of each booster's trees for each row: a word of rows at a time."""
    sums = np.empty((len(rows), len(ends)), np.float32)
    passed, reached = np.empty(thresholds.size, np.uint64), np.empty(splits.shape[1], np.uint64)
    levels, numbers = np.zeros(16, np.uint64), np.zeros((2, 8), np.uint64)
    low, high = numbers[0].view(np.uint8), numbers[1].view(np.uint8)
    total = np.empty(WORD, np.float32)
    for first in range(0, len(rows), WORD):
        count, tree = min(WORD, len(rows) - first), 0
        compare_word(thresholds, rows[first : first + count], passed)
        for booster in range(len(ends)):
            total[:] = starts[booster]
            while tree < ends[booster]:
                descend_word(splits[tree], passed, reached, levels)
                number_leaves(levels, splits.shape[1], numbers)
                add_leaves(leaves[tree], low, high, total)
                tree += 1
            for k in range(count):
                sums[first + k, booster] = total[k]
    return sums


@kernel
def compare_word(thresholds, rows, passed):  # type: ignore[no-untyped-def]
    """Fill in, for each threshold, a bit for each row that has passed it."""
    width = thresholds.shape[1]
    passed[:] = 0
    for row in range(len(rows)):
        bit = np.uint64(1) << np.uint64(row)
        for feature in range(len(thresholds)):
            value, own, below = rows[row, feature], thresholds[feature], np.int32(0)
            for k in range(width):
                below += value >= own[k]
            if below:
                passed[feature * width + below - 1] |= bit
    for feature in range(len(thresholds)):
        mine = passed[feature * width : (feature + 1) * width]
        for k in range(width - 2, -1, -1):
            mine[k] |= mine[k + 1]


@kernel
def descend_word(splits, passed, reached, levels):  # type: ignore[no-untyped-def]
    """Fill in, for each level of a tree from the last one on, which rows go right there."""
    places, width, level = len(splits), 1, 0
    while 2 * width < places:
        width, level = 2 * width, level + 1
    width, reached[1] = 1, ~np.uint64(0)
    while width < places:
        right = np.uint64(0)
        for node in range(width, 2 * width):
            here = reached[node]
            there = here & passed[splits[node]]
            if 2 * width < places:
                reached[2 * node], reached[2 * node + 1] = here ^ there, there
            right |= there
        levels[level] = right
        width, level = 2 * width, level - 1


@kernel
def number_leaves(levels, places, numbers):  # type: ignore[no-untyped-def]
    """Fill in the number of the leaf that each row reached: its bits, one a level.

    The low bytes of all rows come first, eight of them a word, then the high ones.
    """
    for byte in range(2):
        if places >> (8 * byte) <= 1:
            break
        square = numbers[byte]
        square[:] = 0
        for level in range(8):
            bits, shift = levels[8 * byte + level], np.uint64(8 * level)
            for eight in range(8):
                square[eight] |= (bits >> np.uint64(8 * eight) & np.uint64(255)) << shift
        for eight in range(8):
            square[eight] = transposed(square[eight])


@kernel
def add_leaves(values, low, high, total):  # type: ignore[no-untyped-def]
    """Add the values of the leaves that the rows reached."""
    if len(values) <= 256:
        for k in range(WORD):
            total[k] += values[low[k]]
        return
    for k in range(WORD):
        total[k] += values[np.uint16(low[k]) | np.uint16(high[k]) << np.uint16(8)]


@kernel
def transposed(square):  # type: ignore[no-untyped-def]
    """Eight by eight bits, rows for columns (Warren, "Hacker's Delight", 7-3)."""
    swap = (square ^ square >> np.uint64(7)) & np.uint64(0x00AA00AA00AA00AA)
    square = square ^ swap ^ swap << np.uint64(7)
    swap = (square ^ square >> np.uint64(14)) & np.uint64(0x0000CCCC0000CCCC)
    square = square ^ swap ^ swap << np.uint64(14)
    swap = (square ^ square >> np.uint64(28)) & np.uint64(0x00000000F0F0F0F0)
    return square ^ swap ^ swap << np.uint64(28)
