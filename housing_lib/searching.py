"""The nearest of many points, found by compiled code just as scipy finds them.

Many districts lie at one place, so that distances tie and the order among them
decides which prices count. Where distances tie, they are found in scipy's own
trees by scipy's own algorithm (best bin first, Arya and Mount 1993), with heaps
that break ties alike. Elsewhere there is one right order, and buckets of points
that are measured side by side find it in a fraction of the time.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from housing_lib.contract import Floats
from housing_lib.jit import kernel

LEAF = -1
# Boxes are measured in another order than points, which rounds otherwise.
SLACK = 1 + 1e-12
FARTHEST = np.finfo(np.float64).max  # what fills up boxes and buckets is farther


class Search(NamedTuple):
    """Points, as one k-d tree and as buckets of those that lie together.

    `low` and `high` are the children of a node that splits, or else the range of
    points that a leaf holds. The points lie leaf by leaf; `order` has their rows,
    and `place` is where each row lies. A bucket is filled up by points that are
    infinitely far. Buckets are the leaves of a tree of boxes, in which the children of
    node n are `fan` n + 1 and those after it; `boxes` has the two sides of the children of
    each node, shape (nodes, 2, dimensions, fan). Boxes that hold nothing are infinitely far.
    """

    points: Floats
    order: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    axis: npt.NDArray[np.int64]
    split: Floats
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]
    floor: Floats
    ceiling: Floats
    buckets: Floats
    bucket_rows: npt.NDArray[np.int64]
    boxes: Floats


@kernel
def nearest(search, point, reach, distances, found):  # type: ignore[no-untyped-def]
    """Fill in the distances and rows of the nearest points, the nearest first.

    `reach` is a squared distance within which there are as many, or infinite.
    """
    count = len(distances)
    squares, rows = np.empty(count + 1), np.empty(count + 1, np.int64)
    kept = keep_nearest(search, point, reach * SLACK, squares, rows)
    tied = kept < count
    for k in range(1, kept):
        tied |= squares[k] == squares[k - 1]
    if tied:
        nearest_in_order(search, point, count, distances, found)
        return
    for k in range(count):
        distances[k], found[k] = math.sqrt(squares[k]), rows[k]


@kernel
def reach_of(search, point, rows):  # type: ignore[no-untyped-def]
    """The squared distance to the farthest of some rows."""
    farthest = 0.0
    for row in rows:
        farthest = max(farthest, squared_distance(search.points, search.place[row], point))
    return farthest


@kernel
def keep_nearest(search, point, bound, squares, rows):  # type: ignore[no-untyped-def]
    """The number of points found within the bound, as many as there is room for, in order."""
    inner, size, fan = len(search.boxes), search.buckets.shape[2], search.boxes.shape[3]
    room = inner * fan + 1
    waiting, kept, away, nodes = 1, 0, np.empty(room), np.empty(room, np.int64)
    away[0] = nodes[0] = 0
    parts, near, aside = np.empty((4, size)), np.empty(size), np.empty(fan)
    bound = min(bound, FARTHEST)
    while waiting > 0 and away[0] <= bound:
        node = nodes[0]
        waiting = heap_remove(away, nodes, waiting)
        if node < inner:
            box_distances(search.boxes[node], point, aside)
            for k in range(fan):
                if aside[k] <= bound:
                    waiting = heap_push(away, nodes, waiting, aside[k], fan * node + 1 + k)
            continue
        bucket_distances(search.buckets[node - inner], point, parts, near)
        for k in range(size):
            if near[k] <= bound:
                kept = insert(squares, rows, kept, near[k], search.bucket_rows[node - inner, k])
                if kept == len(squares):
                    bound = min(bound, squares[kept - 1] * SLACK)
    return kept


@kernel
def box_distances(boxes, point, away):  # type: ignore[no-untyped-def]
    """Fill in the squared distance to each box."""
    away[:] = 0
    for axis in range(len(point)):
        low, high, here = boxes[0, axis], boxes[1, axis], point[axis]
        for box in range(len(away)):
            side = max(max(low[box] - here, here - high[box]), 0.0)
            away[box] += side * side


@kernel
def bucket_distances(points, point, parts, near):  # type: ignore[no-untyped-def]
    """Fill in the squared distances to the points of a bucket, summed up in scipy's order."""
    size, whole = len(near), len(point) // 4 * 4
    for part in range(4):
        for k in range(size):
            parts[part, k] = 0.0
    for axis in range(whole):
        part, column, here = parts[axis % 4], points[axis], point[axis]
        for k in range(size):
            part[k] += (column[k] - here) ** 2
    for k in range(size):
        near[k] = parts[0, k] + parts[1, k] + parts[2, k] + parts[3, k]
    for axis in range(whole, len(point)):
        column, here = points[axis], point[axis]
        for k in range(size):
            near[k] += (column[k] - here) ** 2


@kernel
def insert(squares, rows, kept, square, row):  # type: ignore[no-untyped-def]
    """The number of points kept in order, after one more; the last gives way if they are many."""
    if kept < len(squares):
        kept += 1
    elif square >= squares[kept - 1]:
        return kept
    k = kept - 1
    while k > 0 and squares[k - 1] > square:
        squares[k], rows[k] = squares[k - 1], rows[k - 1]
        k -= 1
    squares[k], rows[k] = square, row
    return kept


@kernel
def nearest_in_order(search, point, count, distances, found):  # type: ignore[no-untyped-def]
    """Fill in the distances and rows of the nearest points as scipy orders them, ties too."""
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


@kernel
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


@kernel
def heap_push(priorities, contents, size, priority, content):  # type: ignore[no-untyped-def]
    """The size of a heap, least priority first, after pushing an item."""
    priorities[size], contents[size] = priority, content
    k = size
    while k > 0 and priorities[k] < priorities[(k - 1) // 2]:
        heap_swap(priorities, contents, k, (k - 1) // 2)
        k = (k - 1) // 2
    return size + 1


@kernel
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


@kernel
def heap_swap(priorities, contents, first, second):  # type: ignore[no-untyped-def]
    """Exchange two items of a heap."""
    priorities[first], priorities[second] = priorities[second], priorities[first]
    contents[first], contents[second] = contents[second], contents[first]
