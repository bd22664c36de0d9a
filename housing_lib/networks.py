"""Neural networks as arrays, asked by compiled code in single precision."""

from dataclasses import dataclass

import numpy as np

from housing_lib.contract import Floats, Singles
from housing_lib.jit import kernel


@dataclass(frozen=True)
class Layer:
    """What units do with values: weights (networks, values, units), and where sums start."""

    weights: Singles
    starts: Singles


@dataclass(frozen=True)
class Networks:
    """The mean of several networks that see each feature as the normal score of its rank.

    Parameters
    ----------
    knots, scores
        Quantiles of each feature among known districts, shape (features, quantiles), and
        what a feature becomes there; in between it becomes what lies between.
    first, second, last
        The layers, of which the last has one unit; nothing negative enters but the first.
    """

    knots: Singles
    scores: Singles
    first: Layer
    second: Layer
    last: Layer

    def predict(self, matrix: Floats) -> Floats:
        """The value of each row of the model matrix: the same alone as among others."""
        first, second, last = self.first, self.second, self.last
        found: Floats = ask(
            self.knots, self.scores, first.weights, first.starts, second.weights, second.starts,
            last.weights, last.starts, np.ascontiguousarray(matrix, dtype="f4"),
        ).astype("f8")  # fmt: skip
        return found


@kernel
def ask(knots, scores, first, starts, second, seconds, last, ends, rows):  # type: ignore[no-untyped-def]
    """The mean of what the networks say of each row."""
    means, ranked = np.zeros(len(rows), np.float32), np.empty(rows.shape[1], np.float32)
    inner, outer = np.empty(first.shape[2], np.float32), np.empty(second.shape[2], np.float32)
    end = np.empty(1, np.float32)
    for row in range(len(rows)):
        rank(knots, scores, rows[row], ranked)
        for one in range(len(first)):
            pass_on(first[one], starts[one], ranked, inner)
            pass_on(second[one], seconds[one], np.maximum(inner, 0), outer)
            pass_on(last[one], ends[one], np.maximum(outer, 0), end)
            means[row] += end[0]
    return means / np.float32(len(first))


@kernel
def rank(knots, scores, row, ranked):  # type: ignore[no-untyped-def]
    """Fill in the normal score of each feature of a row."""
    last = len(scores) - 1
    for feature in range(len(knots)):
        value, own, passed = row[feature], knots[feature], np.int32(0)
        for k in range(len(own)):
            passed += value >= own[k]
        if passed == 0 or passed > last:
            ranked[feature] = scores[min(passed, last)]
            continue
        share = (value - own[passed - 1]) / (own[passed] - own[passed - 1])
        step = scores[passed] - scores[passed - 1]
        ranked[feature] = scores[passed - 1] + share * step


@kernel
def pass_on(weights, starts, values, units):  # type: ignore[no-untyped-def]
    """Fill in the sums of a layer's units."""
    units[:] = starts
    for k in range(len(values)):
        value, own = values[k], weights[k]
        for unit in range(len(units)):
            units[unit] += value * own[unit]


@kernel
def rank_all(knots, scores, rows):  # type: ignore[no-untyped-def]
    """The normal scores of the features of all rows."""
    ranked = np.empty_like(rows)
    for row in range(len(rows)):
        rank(knots, scores, rows[row], ranked[row])
    return ranked
