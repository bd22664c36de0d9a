"""The model matrix of districts, computed by compiled code without pandas or scikit-learn.

Number by number what `features` and `neighbours` compute, which say why.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from housing_lib.contract import Floats
from housing_lib.jit import kernel
from housing_lib.searching import Search, nearest

RADIAN = math.pi / 180
# The 1, 2, 3, 5, 10, 20 and 40 nearest; spreads begin at the fourth of these.
FIRST_SPREAD = 3


class Own(NamedTuple):
    """What a district's own features need: cities in degrees, rotations in radians, the coast."""

    cities: Floats
    angles: Floats
    coast: Search
    coast_points: int
    radius_km: float


class Known(NamedTuple):
    """The training districts: traits, incomes, prices, and how many of them count as near."""

    counts: npt.NDArray[np.int64]
    few: int
    many: int
    kinds: Floats
    incomes: Floats
    prices: Floats


class Space(NamedTuple):
    """A space in which training districts are near.

    Parameters
    ----------
    kilometres
        How many of them count as much as one spread of a trait; infinite where only places do.
    penalties
        Those of the local regressions.
    """

    search: Search
    kilometres: float
    softening: float
    penalties: Floats


class Around(NamedTuple):
    """The training districts, and each space in which some of them are near, places first.

    Parameters
    ----------
    mean, spread
        Of the traits.
    distances
        The columns of distances, counted from the last column of the matrix: -1, -2 ...
    """

    known: Known
    spaces: tuple[Space, ...]
    mean: Floats
    spread: Floats
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
    grown = [7, 9, *range(cities.start, cities.stop + 2)]
    matrix[:, grown] = np.log1p(matrix[:, grown])
    matrix[:, around.distances] = np.log(matrix[:, around.distances])
    return matrix, kilometres


@kernel
def raw_matrix(districts, incomes, counts, own, around):  # type: ignore[no-untyped-def]
    """The matrix before logarithms are taken, and the kilometres to the nearest known district."""
    at, traits = 15 + len(own.angles) + len(own.cities), around.known.kinds.shape[1]
    width = at + 2 * traits
    for space in around.spaces:
        width += 5 * len(around.known.counts) - FIRST_SPREAD + 4 + len(space.penalties)
    matrix, kilometres = np.empty((len(districts), width)), np.empty(len(districts))
    places, kinds = np.empty((len(districts), 3)), np.empty((len(districts), traits))
    for row in range(len(districts)):
        district = districts[row]
        place_km(district[6], district[7], own.radius_km, places[row])
        own_features(district, counts[row], places[row], own, matrix[row])
        kinds[row, 0], kinds[row, 1] = incomes[row], district[1]
        kinds[row, 2:4], kinds[row, 4] = counts[row, :2], counts[row, 3]
        kinds[row] = (kinds[row] - around.mean) / around.spread
    for space in around.spaces:
        at = space_features(districts, places, kinds, space, around.known, matrix, kilometres, at)
    return matrix, kilometres


@kernel
def place_km(latitude, longitude, radius, place):  # type: ignore[no-untyped-def]
    """Fill in a place on the sphere, as `places.places_km` has it."""
    phi, turn = latitude * RADIAN, longitude * RADIAN
    across = math.cos(phi)
    place[0] = radius * (across * math.cos(turn))
    place[1] = radius * (across * math.sin(turn))
    place[2] = radius * math.sin(phi)


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
    squares, found = np.empty(1, np.float32), np.empty(1, np.int64)
    nearest(own.coast, place.astype(np.float32), squares, found)
    out[at + 1] = math.sqrt(squares[0])
    out[at + 2] = found[0] / (own.coast_points - 1)


@kernel
def half_chord(latitude, longitude, to_latitude, to_longitude):  # type: ignore[no-untyped-def]
    """The sine of half the angle between two places, as `places.distance_km` computes it."""
    phi, to_phi = latitude * RADIAN, to_latitude * RADIAN
    rise = math.sin((to_phi - phi) / 2)
    turn = math.sin((to_longitude - longitude) * RADIAN / 2)
    return math.sqrt(rise * rise + math.cos(phi) * math.cos(to_phi) * (turn * turn))


@kernel
def space_features(districts, places, kinds, space, known, matrix, kilometres, at):  # type: ignore[no-untyped-def]
    """Fill in what `neighbours.NeighbourFeatures` computes in one space; the column after that."""
    most, end, km = known.counts[-1], at, space.kilometres
    squares, found, distances = np.empty(most, np.float32), np.empty(most, np.int64), np.empty(most)
    point = np.empty(3 if np.isinf(km) else 3 + kinds.shape[1], np.float32)
    for row in range(len(districts)):
        out, kind = matrix[row], kinds[row]
        point[:3] = places[row] if np.isinf(km) else places[row] / km
        point[3:] = kind[: len(point) - 3]
        nearest(space.search, point, squares, found)
        distances[:] = np.sqrt(squares)
        if np.isinf(km):
            kilometres[row] = distances[0]
            mean_kinds(known.kinds, found, known.few, out[-2 * len(kind) :])
            mean_kinds(known.kinds, found, known.many, out[-len(kind) :])
        distances += space.softening
        end = prices_around(distances, found, max(districts[row, 0], 0.1), known, out, at)
        end = local_prices(distances, found, kind, space.penalties, known, out, end)
    return end


@kernel
def mean_kinds(kinds, found, count, out):  # type: ignore[no-untyped-def]
    """Fill in the mean traits of the nearest districts."""
    for trait in range(kinds.shape[1]):
        total = 0.0
        for k in range(count):
            total += kinds[found[k], trait]
        out[trait] = total / count


@kernel
def prices_around(distances, found, income, known, out, at):  # type: ignore[no-untyped-def]
    """Fill in what the prices of the nearest districts tell; the place after that."""
    counts, groups = known.counts, len(known.counts)
    total = squares = weights = weighted = by_income = 0.0
    lowest, highest = np.inf, -np.inf
    group, spread, ends = 0, at + 4 * groups, at + 5 * groups - FIRST_SPREAD
    for k in range(counts[-1]):
        price, weight = known.prices[found[k]], 1 / distances[k]
        total += price
        squares += price * price
        weights += weight
        weighted += weight * price
        by_income += weight * (price / known.incomes[found[k]])
        lowest, highest = min(lowest, price), max(highest, price)
        count = k + 1
        if count == known.few:
            out[ends], out[ends + 2] = lowest, highest
        if count == known.many:
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
def local_prices(distances, found, kind, penalties, known, out, at):  # type: ignore[no-untyped-def]
    """Fill in the prices by ridge regressions on traits over the neighbours; the column after."""
    if len(penalties) == 0:
        return at
    size = len(kind) + 1
    gram, moment, design = np.zeros((size, size)), np.zeros(size), np.ones(size)
    for k in range(len(distances)):
        near = max(1 - (distances[k] / distances[-1]) ** 2, 0.05)
        for trait in range(size - 1):
            design[trait + 1] = known.kinds[found[k], trait] - kind[trait]
        for i in range(size):
            weighted = near * near * design[i]
            moment[i] += weighted * known.prices[found[k]]
            for j in range(i + 1):
                gram[i, j] += weighted * design[j]
    for penalty in penalties:
        out[at] = first_unknown(gram, moment, penalty)
        at += 1
    return at


@kernel
def first_unknown(gram, moment, penalty):  # type: ignore[no-untyped-def]
    """The constant of a ridge regression, by eliminating the other unknowns from the last on.

    Of the symmetric matrix the lower half is enough.
    """
    matrix, right = gram.copy(), moment.copy()
    matrix[0, 0] += 1e-9
    for pivot in range(len(right) - 1, 0, -1):
        matrix[pivot, pivot] += penalty
        for row in range(pivot):
            share = matrix[pivot, row] / matrix[pivot, pivot]
            right[row] -= share * right[pivot]
            for column in range(row + 1):
                matrix[row, column] -= share * matrix[pivot, column]
    return right[0] / matrix[0, 0]
