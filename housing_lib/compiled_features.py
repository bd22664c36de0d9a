"""The model matrix of districts, computed by compiled code without pandas or scikit-learn.

Number by number what `features` and `neighbours` compute, which say why.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from housing_lib.contract import Floats
from housing_lib.jit import kernel
from housing_lib.searching import Search, nearest, nearest_in_order, reach_of

RADIAN = math.pi / 180
# The 1, 2, 3, 5, 10, 20 and 40 nearest; spreads begin at the fourth of these.
FIRST_SPREAD = 3


class Own(NamedTuple):
    """What a district's own features need: cities in degrees, rotations in radians, the coast."""

    cities: Floats
    angles: Floats
    coast: Search
    radius_km: float


class Around(NamedTuple):
    """The training districts, and each space in which some of them are near.

    Parameters
    ----------
    kilometres
        How many of them count as much as one spread of a trait, space by space.
    penalties
        Those of the local regressions, shape (spaces, most of a space); NaN where there is none.
    distances
        The columns of distances, counted from the last column of the matrix: -1, -2 ...
    """

    counts: npt.NDArray[np.int64]
    few: int
    many: int
    mean: Floats
    spread: Floats
    kinds: Floats
    incomes: Floats
    prices: Floats
    searches: tuple[Search, ...]
    kilometres: Floats
    softenings: Floats
    penalties: Floats
    distances: npt.NDArray[np.int64]


def district_matrix(districts: Floats, own: Own, around: Around) -> tuple[Floats, Floats]:
    """The unscaled matrix of complete districts, and the kilometres to the nearest known one.

    Logarithms and arc sines are numpy's, whose last bit is not that of the C
    library: a tree may cut between the two.
    """
    incomes = np.log(np.maximum(districts[:, 0], 0.1))
    counts = np.log1p(np.maximum(districts[:, 2:6], 0))
    matrix, kilometres = raw_matrix(districts, incomes, counts, own, around)
    cities = slice(12 + len(own.angles), 12 + len(own.angles) + len(own.cities))
    matrix[:, cities] = 2 * own.radius_km * np.arcsin(matrix[:, cities])
    matrix[:, cities.stop] = matrix[:, cities].min(axis=1)
    for columns in ([7, 9], slice(cities.start, cities.stop + 2)):
        matrix[:, columns] = np.log1p(matrix[:, columns])
    matrix[:, around.distances] = np.log(matrix[:, around.distances])
    return matrix, kilometres


@kernel
def raw_matrix(districts, incomes, counts, own, around):  # type: ignore[no-untyped-def]
    """The matrix before logarithms are taken, and the kilometres to the nearest known district."""
    width = own_width(own) + 2 * around.kinds.shape[1]
    for space in range(len(around.kilometres)):
        width += space_width(around, space)
    matrix, kilometres = np.empty((len(districts), width)), np.empty(len(districts))
    kind = np.empty(5)
    for row in range(len(districts)):
        district, out = districts[row], matrix[row]
        place = place_km(district[6], district[7], own.radius_km)
        own_features(district, counts[row], place, own, out)
        kind[0], kind[1] = incomes[row], district[1]
        kind[2], kind[3], kind[4] = counts[row, 0], counts[row, 1], counts[row, 3]
        scaled = (kind - around.mean) / around.spread
        income = max(district[0], 0.1)
        kilometres[row] = around_features(income, scaled, place, around, out[own_width(own) :])
    return matrix, kilometres


@kernel
def own_width(own):  # type: ignore[no-untyped-def]
    """The number of features that a district has of itself."""
    return 15 + len(own.angles) + len(own.cities)


@kernel
def space_width(around, space):  # type: ignore[no-untyped-def]
    """The number of features that the neighbours in one space add."""
    return 5 * len(around.counts) - FIRST_SPREAD + 4 + np.isfinite(around.penalties[space]).sum()


@kernel
def place_km(latitude, longitude, radius):  # type: ignore[no-untyped-def]
    """A place on the sphere, as `geography.places_km` has it."""
    phi, turn = latitude * RADIAN, longitude * RADIAN
    place = np.empty(3)
    across = math.cos(phi)
    place[0] = radius * (across * math.cos(turn))
    place[1] = radius * (across * math.sin(turn))
    place[2] = radius * math.sin(phi)
    return place


@kernel
def own_features(district, counts, place, own, out):  # type: ignore[no-untyped-def]
    """Fill in what `features.DistrictFeatures` computes, before the other logarithms."""
    income, age, rooms, bedrooms, people, occupants, latitude, longitude = district
    out[0], out[1], out[2:6] = income, age, counts
    out[6] = bedrooms / max(rooms, 0.1)
    out[7] = max(occupants / max(rooms, 0.1), 0)
    out[8] = income / max(rooms, 0.1)
    out[9] = people / max(occupants, 0.1)
    out[10], out[11] = latitude, longitude
    at = 12
    for angle in own.angles:
        out[at] = math.cos(angle) * longitude + math.sin(angle) * latitude
        at += 1
    for city in range(len(own.cities)):
        out[at] = half_chord(latitude, longitude, own.cities[city, 0], own.cities[city, 1])
        at += 1
    distances, found = np.empty(1), np.empty(1, np.int64)
    nearest(own.coast, place, np.inf, distances, found)
    out[at + 1] = distances[0]
    out[at + 2] = found[0] / (len(own.coast.points) - 1)


@kernel
def half_chord(latitude, longitude, to_latitude, to_longitude):  # type: ignore[no-untyped-def]
    """The sine of half the angle between two places, as `geography.distance_km` computes it."""
    phi, to_phi = latitude * RADIAN, to_latitude * RADIAN
    rise = math.sin((to_phi - phi) / 2)
    turn = math.sin((to_longitude - longitude) * RADIAN / 2)
    return math.sqrt(rise * rise + math.cos(phi) * math.cos(to_phi) * (turn * turn))


@kernel
def around_features(income, kind, place, around, out):  # type: ignore[no-untyped-def]
    """Fill in what `neighbours.NeighbourFeatures` computes; the distance to the nearest place."""
    most = around.counts[-1]
    distances, found = np.empty(most), np.empty(most, np.int64)
    point = np.empty(3 + len(kind))
    at, kilometres = 0, np.inf
    traits = out[len(out) - 2 * len(kind) :]
    for space in range(len(around.kilometres)):
        km, search = around.kilometres[space], around.searches[space]
        if np.isinf(km):
            find(search, place, found[:0], distances, found)
            kilometres = distances[0]
            mean_kinds(around.kinds, found, around.few, traits)
            mean_kinds(around.kinds, found, around.many, traits[len(kind) :])
        else:
            point[:3], point[3:] = place / km, kind
            find(search, point, found, distances, found)
        distances += around.softenings[space]
        at = prices_around(distances, found, income, around, out, at)
        at = local_prices(distances, found, kind, around.penalties[space], around, out, at)
    return kilometres


@kernel
def find(search, point, seeds, distances, found):  # type: ignore[no-untyped-def]
    """Fill in the nearest; where there are too few, the farthest stands for the others.

    The nearest of the space before, its seeds, tell how far it is at most. Where there
    are none the space is that of places, which tie so often that order comes first.
    """
    most, there = len(distances), min(len(distances), len(search.points))
    if len(seeds) == there:
        nearest(search, point, reach_of(search, point, seeds), distances, found)
    else:
        nearest_in_order(search, point, there, distances, found)
    for k in range(there, most):
        distances[k], found[k] = distances[there - 1], found[there - 1]


@kernel
def mean_kinds(kinds, found, count, out):  # type: ignore[no-untyped-def]
    """Fill in the mean traits of the nearest districts."""
    for trait in range(kinds.shape[1]):
        total = 0.0
        for k in range(count):
            total += kinds[found[k], trait]
        out[trait] = total / count


@kernel
def prices_around(distances, found, income, around, out, at):  # type: ignore[no-untyped-def]
    """Fill in what the prices of the nearest districts tell; the place after that."""
    counts, groups = around.counts, len(around.counts)
    total = squares = weights = weighted = by_income = 0.0
    lowest, highest = np.inf, -np.inf
    group, spread, ends = 0, at + 4 * groups, at + 5 * groups - FIRST_SPREAD
    for k in range(counts[-1]):
        price, weight = around.prices[found[k]], 1 / distances[k]
        total += price
        squares += price * price
        weights += weight
        weighted += weight * price
        by_income += weight * (price / around.incomes[found[k]])
        lowest, highest = min(lowest, price), max(highest, price)
        count = k + 1
        if count == around.few:
            out[ends], out[ends + 2] = lowest, highest
        if count == around.many:
            out[ends + 1], out[ends + 3] = lowest, highest
        if count == counts[group]:
            mean = total / count
            out[at + group] = mean
            out[at + groups + group] = weighted / weights
            out[at + 2 * groups + group] = by_income / weights * income
            out[at + 3 * groups + group] = distances[k]
            if group >= FIRST_SPREAD:
                out[spread + group - FIRST_SPREAD] = math.sqrt(
                    max(squares / count - mean * mean, 0)
                )
            group += 1
    return ends + 4


@kernel
def local_prices(distances, found, kind, penalties, around, out, at):  # type: ignore[no-untyped-def]
    """Fill in the prices by ridge regressions on traits over the neighbours; the place after."""
    if np.isnan(penalties[0]):
        return at
    size = len(kind) + 1
    gram, moment, design = np.zeros((size, size)), np.zeros(size), np.ones(size)
    for k in range(len(distances)):
        near = max(1 - (distances[k] / distances[-1]) ** 2, 0.05)
        for trait in range(size - 1):
            design[trait + 1] = around.kinds[found[k], trait] - kind[trait]
        for i in range(size):
            weighted = near * near * design[i]
            moment[i] += weighted * around.prices[found[k]]
            for j in range(size):
                gram[i, j] += weighted * design[j]
    for penalty in penalties:
        if np.isfinite(penalty):
            out[at] = first_unknown(gram, moment, penalty)
            at += 1
    return at


@kernel
def first_unknown(gram, moment, penalty):  # type: ignore[no-untyped-def]
    """The constant of a ridge regression, by eliminating the other unknowns from the last on."""
    matrix, right = gram.copy(), moment.copy()
    matrix[0, 0] += 1e-9
    for pivot in range(len(right) - 1, 0, -1):
        matrix[pivot, pivot] += penalty
        for row in range(pivot):
            share = matrix[row, pivot] / matrix[pivot, pivot]
            right[row] -= share * right[pivot]
            for column in range(pivot):
                matrix[row, column] -= share * matrix[pivot, column]
    return right[0] / matrix[0, 0]
