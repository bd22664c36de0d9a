"""Why a price is what it is: what each thing about a district adds, in dollars."""

from itertools import product
from math import factorial

import numpy as np
import numpy.typing as npt

from housing_lib.contract import FEATURES, USD_PER_UNIT, Floats
from serve.champion import Champion
from serve.schemas import Contribution, Explanation

STRONGEST = 5
# Latitude and longitude count as one: half a place is none.
PLAYERS = {name: [FEATURES.index(name)] for name in FEATURES[:6]} | {"Place": [6, 7]}


def explain(champion: Champion, district: Floats) -> Explanation:
    """The five strongest contributions to a price, and what the others add.

    Shapley values over all coalitions, in which a feature that stays out has its
    typical (median) value: the "baseline Shapley" of Sundararajan and Najmi (2020).
    All of them and the typical price add up to the price.
    """
    typical = champion.model.medians
    given = np.where(np.isnan(district), typical, district)
    coalitions = np.array(list(product((False, True), repeat=len(PLAYERS))))
    prices = champion.answer(_mixed(coalitions, given, typical)).prices * USD_PER_UNIT
    values = dict(zip(PLAYERS, _shapley(coalitions, prices), strict=True))
    ordered = sorted(values.items(), key=lambda item: -abs(item[1]))
    shown = [Contribution(name, round(value, 2)) for name, value in ordered[:STRONGEST]]
    rest = sum(value for _, value in ordered[STRONGEST:])
    return Explanation(round(float(prices[0]), 2), [*shown, Contribution("Others", round(rest, 2))])


def _mixed(coalitions: npt.NDArray[np.bool_], given: Floats, typical: Floats) -> Floats:
    rows = np.tile(typical, (len(coalitions), 1))
    for player, columns in enumerate(PLAYERS.values()):
        inside = np.flatnonzero(coalitions[:, player])
        rows[inside[:, None], columns] = given[columns]
    return rows


def _shapley(coalitions: npt.NDArray[np.bool_], prices: Floats) -> list[float]:
    players = coalitions.shape[1]
    sizes = coalitions.sum(axis=1)
    weights = [
        factorial(k) * factorial(players - k - 1) / factorial(players) for k in range(players)
    ]
    values = []
    for player in range(players):
        without = np.flatnonzero(~coalitions[:, player])
        joined = without + 2 ** (players - 1 - player)
        gains = prices[joined] - prices[without]
        values.append(float(np.dot(np.take(weights, sizes[without]), gains)))
    return values
