"""Neural networks of one hidden layer as arrays, asked by compiled code in single precision."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from housing_lib.contract import Floats
from housing_lib.jit import kernel

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Networks:
    """The mean of several networks that see each feature as the normal score of its rank.

    Parameters
    ----------
    knots, scores
        Quantiles of each feature among known districts, shape (features, quantiles), and
        what a feature becomes there; in between it becomes what lies between.
    hidden, thresholds
        Weights of the features, shape (networks, features, units), and what is added to them.
    out, starts
        Weights of the units, shape (networks, units), and what is added to them.
    """

    knots: Singles
    scores: Singles
    hidden: Singles
    thresholds: Singles
    out: Singles
    starts: Singles

    def predict(self, matrix: Floats) -> Floats:
        """The value of each row of the model matrix."""
        ranked = rank(self.knots, self.scores, np.ascontiguousarray(matrix, dtype="f4"))
        return ask(self.hidden, self.thresholds, self.out, self.starts, ranked).astype("f8")


@kernel
def rank(knots, scores, rows):  # type: ignore[no-untyped-def]
    """The normal score of each feature of each row."""
    ranked = np.empty_like(rows)
    last = len(scores) - 1
    for row in range(len(rows)):
        for feature in range(len(knots)):
            value, own, passed = rows[row, feature], knots[feature], np.int32(0)
            for k in range(len(own)):
                passed += value >= own[k]
            if passed == 0 or passed > last:
                ranked[row, feature] = scores[min(passed, last)]
                continue
            share = (value - own[passed - 1]) / (own[passed] - own[passed - 1])
            step = scores[passed] - scores[passed - 1]
            ranked[row, feature] = scores[passed - 1] + share * step
    return ranked


@kernel
def ask(hidden, thresholds, out, starts, ranked):  # type: ignore[no-untyped-def]
    """The mean of what the networks say of each row: the same alone as among others."""
    values = np.zeros(len(ranked), np.float32)
    units = np.empty(hidden.shape[2], np.float32)
    for row in range(len(ranked)):
        for network in range(len(hidden)):
            units[:] = thresholds[network]
            for feature in range(ranked.shape[1]):
                value, weights = ranked[row, feature], hidden[network, feature]
                for unit in range(len(units)):
                    units[unit] += value * weights[unit]
            values[row] += starts[network]
            for unit in range(len(units)):
                values[row] += max(units[unit], np.float32(0)) * out[network, unit]
        values[row] /= np.float32(len(hidden))
    return values
