"""Neural networks as arrays, asked by compiled code in single precision."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from housing_lib.contract import Floats
from housing_lib.jit import kernel

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """What units do with the values before them: weights (networks, values, units), thresholds."""

    weights: Singles
    thresholds: Singles


@dataclass(frozen=True)
class Networks:
    """The mean of several networks that see each feature as the normal score of its rank.

    Parameters
    ----------
    knots, scores
        Quantiles of each feature among known districts, shape (features, quantiles), and
        what a feature becomes there; in between it becomes what lies between.
    layers
        The last one has one unit; what goes from one to the next is never negative.
    """

    knots: Singles
    scores: Singles
    layers: tuple[Layer, ...]

    def predict(self, matrix: Floats) -> Floats:
        """The value of each row of the model matrix: the same alone as among others."""
        values = rank(self.knots, self.scores, np.ascontiguousarray(matrix, dtype="f4"))[np.newaxis]
        for number, layer in enumerate(self.layers):
            values = pass_on(layer.weights, layer.thresholds, values, number > 0)
        mean: Floats = values[:, :, 0].mean(axis=0).astype("f8")
        return mean


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
def pass_on(weights, thresholds, values, rectified):  # type: ignore[no-untyped-def]
    """The values of a layer's units, shape (networks, rows, units)."""
    networks, entering, units = weights.shape
    left = np.empty((networks, values.shape[1], units), np.float32)
    for network in range(networks):
        before = values[min(network, len(values) - 1)]
        for row in range(len(before)):
            mine = left[network, row]
            mine[:] = thresholds[network]
            for k in range(entering):
                value, own = before[row, k], weights[network, k]
                if value > 0 or not rectified:
                    for unit in range(units):
                        mine[unit] += value * own[unit]
    return left
