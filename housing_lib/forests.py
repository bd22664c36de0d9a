"""Trees of any library as one array of nodes, walked by compiled code."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from housing_lib import shallow
from housing_lib.contract import Floats
from housing_lib.jit import kernel
from housing_lib.shallow import DEEPEST, Shallow

# Trees, or rows, that are walked side by side: each step of a single walk waits for memory.
ABREAST = 8
# Rows that go through all trees together, so that a tree is fetched once for all of them.
BLOCK = 64
NARROW = np.dtype([("threshold", "f4"), ("value", "f4"), ("left", "i4"), ("feature", "i4")])
WIDE = np.dtype([("threshold", "f8"), ("value", "f8"), ("left", "i4"), ("feature", "i4")])
NOTHING = np.iinfo("u2").max  # what a leaf asks

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Forest:
    """Trees whose values add up, in the arithmetic of the library that made them.

    A row goes to `left` where its feature is below the threshold, and to the
    node after it elsewhere. A leaf leads to itself, so that trees of unequal
    depth are walked in step. The nodes lie level by level, the roots first.

    Parameters
    ----------
    nodes
        `NARROW` where sums are in float32, as XGBoost's are, otherwise `WIDE`.
    depths
        The levels below the roots, for each group of `ABREAST` trees.
    start
        What the sum begins with.
    divisor
        What the sum is divided by.
    rounding
        What features are rounded to before they meet a threshold: `f4` or `f8`.
    """

    nodes: npt.NDArray[Any]
    depths: Ints
    trees: int
    start: float
    divisor: float
    rounding: str

    def predict(self, matrix: Floats) -> npt.NDArray[Any]:
        """The value of each row of the model matrix, in the precision of the library."""
        rounded = np.ascontiguousarray(matrix, dtype=self.rounding)
        walk = walk_rows if len(rounded) >= ABREAST else walk_trees
        start = self.nodes.dtype["value"].type(self.start)
        sums: npt.NDArray[Any] = walk(self.nodes, self.depths, self.trees, start, rounded)
        return sums if self.divisor == 1 else sums / self.divisor


@dataclass(frozen=True)
class Mean:
    """The mean of several forests, as scikit-learn's `VotingRegressor` takes it.

    With `doubles` it is taken in double precision, as there where one of them is not single.
    """

    forests: tuple[Forest, ...]
    doubles: bool

    def predict(self, matrix: Floats) -> npt.NDArray[Any]:
        """The value of each row of the model matrix, in the precision of the library."""
        values = np.asarray([forest.predict(matrix) for forest in self.forests])
        if self.doubles:
            values = values.astype("float64")
        mean: npt.NDArray[Any] = np.average(values.T, axis=1)
        return mean


@kernel
def walk_trees(nodes, depths, trees, start, rows):  # type: ignore[no-untyped-def]
    """The sums of the trees for a few rows: one row after the other, its trees abreast."""
    sums = np.full(len(rows), start)
    for row in range(len(rows)):
        sums[row] = walk_one(nodes, depths, trees, start, rows[row])
    return sums


@kernel
def walk_one(nodes, depths, trees, start, row):  # type: ignore[no-untyped-def]
    """The sum of the trees for one row, in their order."""
    total = start
    at = np.empty(ABREAST, np.int32)
    for group in range(len(depths)):
        first = group * ABREAST
        for k in range(ABREAST):
            at[k] = min(first + k, trees - 1)
        for _ in range(depths[group]):
            for k in range(ABREAST):
                node = nodes[at[k]]
                at[k] = node.left + (row[node.feature] >= node.threshold)
        for k in range(min(ABREAST, trees - first)):
            total += nodes[at[k]].value
    return total


@kernel
def walk_rows(nodes, depths, trees, start, rows):  # type: ignore[no-untyped-def]
    """The sums of the trees for many rows: one tree after the other, the rows abreast."""
    sums = np.full(len(rows), start)
    at = np.empty(ABREAST, np.int32)
    for block in range(0, len(rows), BLOCK):
        end = min(block + BLOCK, len(rows))
        for tree in range(trees):
            depth = depths[tree // ABREAST]
            for first in range(block, end, ABREAST):
                for k in range(ABREAST):
                    at[k] = tree
                for _ in range(depth):
                    for k in range(ABREAST):
                        node = nodes[at[k]]
                        row = min(first + k, end - 1)
                        at[k] = node.left + (rows[row, node.feature] >= node.threshold)
                for k in range(min(ABREAST, end - first)):
                    sums[first + k] += nodes[at[k]].value
    return sums


@dataclass(frozen=True)
class _Tree:
    """One tree as its library keeps it; `left` is negative in a leaf."""

    left: Any
    right: Any
    feature: Any
    threshold: Any
    value: Any


def from_xgboost(regressor: Any) -> Forest:
    """The forest of a fitted XGBRegressor, which compares and adds in float32."""
    booster = regressor.get_booster()
    learner = json.loads(booster.save_raw("json"))["learner"]
    trees = learner["gradient_booster"]["model"]["trees"]
    found = [
        _Tree(
            left=np.asarray(tree["left_children"]),
            right=np.asarray(tree["right_children"]),
            feature=np.asarray(tree["split_indices"]),
            threshold=np.asarray(tree["split_conditions"], dtype="f4"),
            value=np.asarray(tree["split_conditions"], dtype="f4"),
        )
        for tree in trees
    ]
    start = float(learner["learner_model_param"]["base_score"].strip("[]"))
    return _lay_out(found, start=start, nodes=NARROW, rounding="f4")


def from_boosters(regressors: Sequence[Any], *, doubles: bool = False) -> Shallow | Mean:
    """The mean of fitted XGBRegressors; laid out as shallow trees, if they are shallow."""
    forests = tuple(from_xgboost(one) for one in regressors)
    return _as_shallow(forests, doubles) or Mean(forests, doubles)


def _as_shallow(forests: tuple[Forest, ...], doubles: bool) -> Shallow | None:
    depth = max(int(one.depths.max()) for one in forests)
    inner = [one.nodes[one.nodes["left"] != np.arange(len(one.nodes))] for one in forests]
    asked = np.unique(np.concatenate([nodes[["feature", "threshold"]] for nodes in inner]))
    counts = np.bincount(asked["feature"])
    width = counts.max(initial=0) + 1
    if depth > DEEPEST or len(counts) * width > np.iinfo("u2").max or not len(counts):
        return None
    thresholds = np.full((len(counts), width), np.inf, dtype="f4")
    rank = np.arange(len(asked)) - np.repeat(np.cumsum(counts) - counts, counts)
    thresholds[asked["feature"], rank] = asked["threshold"]
    laid = [_complete(one, depth, asked, asked["feature"] * width + rank) for one in forests]
    laid = [(_filled(splits, NOTHING), _filled(leaves, 0)) for splits, leaves in laid]
    splits, leaves = (np.concatenate(parts) for parts in zip(*laid, strict=True))
    splits[splits == NOTHING] = width - 1  # the first feature's infinity
    starts = np.array([one.start for one in forests], dtype="f4")
    ends = np.cumsum([len(own) for own, _ in laid])
    return Shallow(thresholds, splits, leaves, starts, ends, doubles)


def _filled(trees: Any, value: float) -> Any:
    """The trees and as many empty ones as are missing from a multiple of those walked abreast."""
    missing = -len(trees) % shallow.ABREAST
    return np.pad(trees, ((0, missing), (0, 0)), constant_values=value)


def _complete(forest: Forest, depth: int, asked: Any, number: Any) -> tuple[Any, Any]:
    """The splits and leaves of trees filled up to a depth."""
    nodes, at = forest.nodes, np.zeros((forest.trees, 2 << depth), dtype="i8")
    inner = nodes["left"] != np.arange(len(nodes))
    found = np.searchsorted(asked, nodes[["feature", "threshold"]])
    asks = np.where(inner, number[np.minimum(found, len(number) - 1)], NOTHING)
    at[:, 1] = np.arange(forest.trees)
    for place in range(1, 1 << depth):
        here = at[:, place]
        at[:, 2 * place] = nodes["left"][here]
        at[:, 2 * place + 1] = nodes["left"][here] + inner[here]
    return asks[at[:, : 1 << depth]].astype("u2"), nodes["value"][at[:, 1 << depth :]]


def from_histogram_boosting(regressor: Any) -> Forest:
    """The forest of a fitted HistGradientBoostingRegressor."""
    stages = [stage[0].nodes for stage in regressor._predictors]
    found = [
        _Tree(
            left=np.where(nodes["is_leaf"], -1, nodes["left"].astype("i8")),
            right=nodes["right"].astype("i8"),
            feature=nodes["feature_idx"].astype("i8"),
            threshold=_just_above(nodes["num_threshold"]),
            value=nodes["value"],
        )
        for nodes in stages
    ]
    start = float(np.ravel(regressor._baseline_prediction)[0])
    return _lay_out(found, start=start, nodes=WIDE, rounding="f8")


def from_trees(regressors: Sequence[Any]) -> Forest:
    """The forest of scikit-learn's own decision trees, whose mean counts."""
    found = [
        _Tree(
            left=one.tree_.children_left,
            right=one.tree_.children_right,
            feature=one.tree_.feature,
            threshold=_just_above(one.tree_.threshold),
            value=one.tree_.value[:, 0, 0],
        )
        for one in regressors
    ]
    return _lay_out(found, start=0.0, divisor=len(found), nodes=WIDE, rounding="f4")


def _just_above(threshold: Any) -> Any:
    # Where scikit-learn goes left at a value that equals the threshold, we go left below this one.
    return np.nextafter(threshold, np.inf)


def _lay_out(
    trees: Sequence[_Tree], *, start: float, nodes: Any, rounding: str, divisor: float = 1.0
) -> Forest:
    sizes = [len(tree.left) for tree in trees]
    first = np.cumsum([0, *sizes[:-1]])
    owner = np.repeat(np.arange(len(trees)), sizes)
    inner = np.concatenate([tree.left for tree in trees]) >= 0
    left = np.concatenate([tree.left for tree in trees]) + first[owner]
    right = np.concatenate([tree.right for tree in trees]) + first[owner]
    levels = _levels(first, left, right, inner)
    order = np.concatenate(levels)
    place = np.empty(len(owner), dtype="i8")
    place[order] = np.arange(len(order))
    laid = np.zeros(len(order), dtype=nodes)
    split = inner[order]
    laid["left"] = np.where(split, place[np.where(inner, left, 0)][order], place[order])
    laid["feature"] = np.where(split, np.concatenate([t.feature for t in trees])[order], 0)
    laid["threshold"] = np.where(split, np.concatenate([t.threshold for t in trees])[order], np.inf)
    laid["value"] = np.concatenate([tree.value for tree in trees])[order]
    depths = _depths([owner[level] for level in levels], len(trees))
    return Forest(laid, depths, len(trees), start, float(divisor), rounding)


def _levels(first: Any, left: Any, right: Any, inner: Any) -> list[Any]:
    levels = [first]
    while inner[levels[-1]].any():
        parents = levels[-1][inner[levels[-1]]]
        levels.append(np.column_stack([left[parents], right[parents]]).ravel())
    return levels


def _depths(owners: Sequence[Any], trees: int) -> Ints:
    deepest = np.zeros(-(-trees // ABREAST) * ABREAST, dtype="i4")
    for depth, level in enumerate(owners):
        deepest[level] = depth
    depths: Ints = deepest.reshape(-1, ABREAST).max(axis=1)
    return depths
