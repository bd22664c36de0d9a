"""The model matrix of districts, computed by compiled code without pandas or scikit-learn.

Number by number what `features` and `neighbours` compute, which say why. Many
districts lie at one place, so that distances tie and the order among them
decides which prices count; so the nearest are found in scipy's own trees by
scipy's own algorithm (best bin first, Arya and Mount 1993), with heaps that
break ties alike.

All compiled code that calls each other stands in this one file, because
numba's cache on the disk notices a change of this file alone.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from housing_lib.contract import Floats

RADIAN = math.pi / 180
# The 1, 2, 3, 5, 10, 20 and 40 nearest; spreads begin at the fourth of these.
FIRST_SPREAD = 3
LEAF = -1


class Search(NamedTuple):
    """One k-d tree: points, and nodes that split them or hold some of them.

    `low` and `high` are the children of a node that splits, or else the range of
    points that a leaf holds. The points lie leaf by leaf; `order` has their rows.
    """

    points: Floats
    order: npt.NDArray[np.int64]
    axis: npt.NDArray[np.int64]
    split: Floats
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]
    floor: Floats
    ceiling: Floats


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
    groups, at = len(around.counts), own_width(own)
    for space in range(len(around.kilometres)):
        columns = slice(at + 3 * groups, at + 4 * groups)
        matrix[:, columns] = np.log(matrix[:, columns])
        at += space_width(around, space)
    return matrix, kilometres


@njit(cache=True, nogil=True)
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


@njit(cache=True)
def own_width(own):  # type: ignore[no-untyped-def]
    """The number of features that a district has of itself."""
    return 15 + len(own.angles) + len(own.cities)


@njit(cache=True)
def space_width(around, space):  # type: ignore[no-untyped-def]
    """The number of features that the neighbours in one space add."""
    return 5 * len(around.counts) - FIRST_SPREAD + 4 + np.isfinite(around.penalties[space]).sum()


@njit(cache=True)
def place_km(latitude, longitude, radius):  # type: ignore[no-untyped-def]
    """A place on the sphere, as `geography.places_km` has it."""
    phi, turn = latitude * RADIAN, longitude * RADIAN
    place = np.empty(3)
    across = math.cos(phi)
    place[0] = radius * (across * math.cos(turn))
    place[1] = radius * (across * math.sin(turn))
    place[2] = radius * math.sin(phi)
    return place


@njit(cache=True)
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
    nearest(own.coast, place, 1, distances, found)
    out[at + 1] = distances[0]
    out[at + 2] = found[0] / (len(own.coast.points) - 1)


@njit(cache=True)
def half_chord(latitude, longitude, to_latitude, to_longitude):  # type: ignore[no-untyped-def]
    """The sine of half the angle between two places, as `geography.distance_km` computes it."""
    phi, to_phi = latitude * RADIAN, to_latitude * RADIAN
    rise = math.sin((to_phi - phi) / 2)
    turn = math.sin((to_longitude - longitude) * RADIAN / 2)
    return math.sqrt(rise * rise + math.cos(phi) * math.cos(to_phi) * (turn * turn))


@njit(cache=True)
def around_features(income, kind, place, around, out):  # type: ignore[no-untyped-def]
    """Fill in what `neighbours.NeighbourFeatures` computes; the distance to the nearest place."""
    most = around.counts[-1]
    distances, found = np.empty(most), np.empty(most, np.int64)
    point = np.empty(3 + len(kind))
    at, kilometres = 0, np.inf
    traits = out[len(out) - 2 * len(kind) :]
    for space in range(len(around.kilometres)):
        km = around.kilometres[space]
        search = around.searches[space]
        if np.isinf(km):
            find(search, place, most, distances, found)
            kilometres = distances[0]
            mean_kinds(around.kinds, found, around.few, traits)
            mean_kinds(around.kinds, found, around.many, traits[len(kind) :])
        else:
            point[:3], point[3:] = place / km, kind
            find(search, point, most, distances, found)
        distances += around.softenings[space]
        at = prices_around(distances, found, income, around, out, at)
        at = local_prices(distances, found, kind, around.penalties[space], around, out, at)
    return kilometres


@njit(cache=True)
def find(search, point, most, distances, found):  # type: ignore[no-untyped-def]
    """Fill in the nearest; where there are too few, the farthest stands for the others."""
    there = min(most, len(search.points))
    nearest(search, point, there, distances, found)
    for k in range(there, most):
        distances[k], found[k] = distances[there - 1], found[there - 1]


@njit(cache=True)
def mean_kinds(kinds, found, count, out):  # type: ignore[no-untyped-def]
    """Fill in the mean traits of the nearest districts."""
    for trait in range(kinds.shape[1]):
        total = 0.0
        for k in range(count):
            total += kinds[found[k], trait]
        out[trait] = total / count


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
def nearest(search, point, count, distances, found):  # type: ignore[no-untyped-def]
    """Fill in the distances and rows of the nearest points, the nearest first."""
    dimensions = len(point)
    bound = np.inf
    kept, kept_priority, kept_row = 0, np.empty(count + 1), np.empty(count + 1, np.int64)
    room = len(search.axis) + 1
    waiting, waiting_priority, waiting_slot = 0, np.empty(room), np.empty(room, np.int64)
    slot, slot_node, slot_distance = 0, np.empty(room, np.int64), np.empty(room)
    sides = np.empty((room, dimensions))
    away = 0.0
    for axis in range(dimensions):
        side = max(0.0, max(point[axis] - search.ceiling[axis], search.floor[axis] - point[axis]))
        sides[0, axis] = side * side
        away += side * side
    node, last = 0, 0
    while True:
        axis = search.axis[node]
        if axis == LEAF:
            for k in range(search.low[node], search.high[node]):
                distance = squared_distance(search.points, k, point)
                if distance < bound:
                    if kept == count:
                        kept = heap_remove(kept_priority, kept_row, kept)
                    row = search.order[k]
                    kept = heap_push(kept_priority, kept_row, kept, -distance, row)
                    if kept == count:
                        bound = -kept_priority[0]
            if waiting == 0:
                break
            slot = waiting_slot[0]
            waiting = heap_remove(waiting_priority, waiting_slot, waiting)
            node, away = slot_node[slot], slot_distance[slot]
            continue
        if away > bound:
            break
        rest = point[axis] - search.split[node]
        near, far = search.low[node], search.high[node]
        if rest >= 0:
            near, far = far, near
        last += 1
        for k in range(dimensions):
            sides[last, k] = sides[slot, k]
        slot_distance[last] = away + (rest * rest - sides[slot, axis])
        sides[last, axis] = rest * rest
        slot_node[last] = far
        node = near
        if away > slot_distance[last]:
            slot_node[last], node = near, far
            swapped = slot_distance[last]
            slot_distance[last], away = away, swapped
            for k in range(dimensions):
                sides[last, k], sides[slot, k] = sides[slot, k], sides[last, k]
        if slot_distance[last] <= bound:
            waiting = heap_push(waiting_priority, waiting_slot, waiting, slot_distance[last], last)
    for k in range(kept - 1, -1, -1):
        distances[k], found[k] = math.sqrt(-kept_priority[0]), kept_row[0]
        kept = heap_remove(kept_priority, kept_row, kept)


@njit(cache=True)
def squared_distance(points, row, point):  # type: ignore[no-untyped-def]
    """The squared distance to one of the points, summed up in scipy's order: four at a time."""
    first = second = third = fourth = 0.0
    whole = len(point) // 4 * 4
    for k in range(0, whole, 4):
        first += (points[row, k] - point[k]) ** 2
        second += (points[row, k + 1] - point[k + 1]) ** 2
        third += (points[row, k + 2] - point[k + 2]) ** 2
        fourth += (points[row, k + 3] - point[k + 3]) ** 2
    total = first + second + third + fourth
    for k in range(whole, len(point)):
        total += (points[row, k] - point[k]) ** 2
    return total


@njit(cache=True)
def heap_push(priorities, contents, size, priority, content):  # type: ignore[no-untyped-def]
    """The size of a heap, least priority first, after pushing an item."""
    priorities[size], contents[size] = priority, content
    k = size
    while k > 0 and priorities[k] < priorities[(k - 1) // 2]:
        heap_swap(priorities, contents, k, (k - 1) // 2)
        k = (k - 1) // 2
    return size + 1


@njit(cache=True)
def heap_remove(priorities, contents, size):  # type: ignore[no-untyped-def]
    """The size of a heap after removing the item of least priority."""
    size -= 1
    priorities[0], contents[0] = priorities[size], contents[size]
    k, left, right = 0, 1, 2
    while (left < size and priorities[k] > priorities[left]) or (
        right < size and priorities[k] > priorities[right]
    ):
        least = left
        if right < size and priorities[left] > priorities[right]:
            least = right
        heap_swap(priorities, contents, k, least)
        k = least
        left, right = 2 * k + 1, 2 * k + 2
    return size


@njit(cache=True)
def heap_swap(priorities, contents, first, second):  # type: ignore[no-untyped-def]
    """Exchange two items of a heap."""
    priorities[first], priorities[second] = priorities[second], priorities[first]
    contents[first], contents[second] = contents[second], contents[first]
