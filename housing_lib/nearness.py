"""The nearest of many points by SciPy's trees, in one right order.

Distances are measured in single precision, axis after axis. The nearest come first, and of
those at one distance the first row. `searching` finds the same with compiled code.
"""

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from housing_lib.contract import Floats, Singles
from housing_lib.processes import cores

Indices = npt.NDArray[np.intp]

WORTH_THREADS = 1_000  # points to look around
SPARE = 8  # points beyond those that count: mostly fewer are at one distance
MOST_AT_ONCE = 4_000_000  # distances
ROUNDED = 1 - 2e-6  # by more than single precision makes squared distances larger


def grow(points: Floats) -> KDTree:
    """A tree of points, which are rounded to single precision."""
    return KDTree(points.astype("f4"))


def nearest(tree: KDTree, points: Floats, count: int) -> tuple[Floats, Indices]:
    """Distances and rows of the nearest points of a tree, shape (points, count)."""
    squares, found = _in_order(tree, points.astype("f4"), count, asked=count + SPARE)
    return np.sqrt(squares).astype("f8"), found


def _in_order(tree: KDTree, points: Singles, count: int, *, asked: int) -> tuple[Singles, Indices]:
    """Squared distances and rows of the nearest points.

    The tree gives those at one distance in any order, so it is asked for more than count,
    and for twice as many where even the last of them is hardly farther away.
    """
    asked = min(asked, tree.n)
    threads = cores() if len(points) >= WORTH_THREADS else 1
    distances, found = tree.query(points, k=np.arange(1, asked + 1), workers=threads)
    squares = _squared_distances(tree, points, found)
    mixed = (squares[:, 1:] <= squares[:, :-1]).any(axis=1)
    order = np.lexsort((found[mixed], squares[mixed]))
    found[mixed] = np.take_along_axis(found[mixed], order, axis=1)
    squares[mixed] = np.take_along_axis(squares[mixed], order, axis=1)
    squares, found = squares[:, :count], found[:, :count]
    if asked < tree.n:
        open_ended = np.flatnonzero(squares[:, -1] >= distances[:, -1] ** 2 * ROUNDED)
        for rows in np.array_split(open_ended, -(-len(open_ended) * asked // MOST_AT_ONCE) or 1):
            if len(rows):
                nearer = _in_order(tree, points[rows], count, asked=2 * asked)
                squares[rows], found[rows] = nearer
    return squares, found


def _squared_distances(tree: KDTree, points: Singles, found: Indices) -> Singles:
    squares = np.zeros(found.shape, dtype="f4")
    for known, asked in zip(tree.data.T, points.T, strict=True):
        side = known[found].astype("f4") - asked[:, None]
        squares += side * side
    return squares
