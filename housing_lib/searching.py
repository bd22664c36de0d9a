"""The nearest of many points, found by compiled code.

Points lie in buckets, which are measured as a whole, and buckets in a tree of boxes,
whose nearest are opened first (best bin first, Arya and Mount 1993). Many districts
lie at one place: of those at one distance the first row comes first.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from housing_lib.contract import Floats
from housing_lib.jit import kernel

# Roots of two squares can be equal, and boxes are measured in another order than points.
SLACK = 1 + 1e-12
BINS = 128  # of distances, which tell what is near enough without sorting
SPARE = 16  # buckets that are kept before they are sorted out
FEW_WAIT = 256  # boxes in the queue; for more of them it grows
SMALLEST = 1e-300
MOST_SINGLE = 3e38  # nearly the largest number in single precision
ROUNDED_DOWN = 1 - 2e-7  # by more than single precision rounds up
FARTHEST = np.finfo(np.float64).max  # what fills up boxes and buckets is farther


class Search(NamedTuple):
    """Points in buckets, which are the leaves of a tree of boxes.

    Parameters
    ----------
    buckets, rows
        The points, shape (buckets, dimensions, points), and which they are. A bucket is
        filled up by points that are infinitely far.
    boxes
        The two sides of the children of each node, shape (nodes, 2, dimensions, fan): those
        of node n are `fan` n + 1 and those after it. Boxes of nothing are infinitely far.
    """

    buckets: Floats
    rows: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float32]


@kernel
def nearest(search, point, distances, found):  # type: ignore[no-untyped-def]
    """Fill in the distances and rows of the nearest points, the nearest first.

    Where there are too few, the farthest stands for the others.
    """
    inner, size, fan = len(search.boxes), search.buckets.shape[2], search.boxes.shape[3]
    waiting, most, queue = 1, len(distances), np.zeros(FEW_WAIT, np.int64)
    near, aside, bound = np.empty(size), np.empty(fan), FARTHEST
    far, rows = np.empty(most + SPARE * size), np.empty(most + SPARE * size, np.int64)
    bins, kept, counted, top, scale = np.zeros(BINS, np.int64), 0, 0, BINS - 1, 0.0
    while waiting > 0 and distance_in(queue[0]) <= bound:
        node = node_in(queue[0])
        waiting = heap_remove(queue, waiting)
        if node < inner:
            box_distances(search.boxes[node], point, aside)
            if waiting + fan > len(queue):
                queue = np.concatenate((queue, queue))
            waiting = queue_up(aside, fan * node + 1, bound, queue, waiting)
            continue
        point_distances(search.buckets[node - inner], point, near)
        first, kept = kept, append(near, search.rows[node - inner], bound, far, rows, kept)
        if scale == 0 and kept >= most:
            first, scale = 0, BINS / max(far[:kept].max(), SMALLEST)
        if scale > 0:
            counted, top = count(far[first:kept], scale, bins, counted, top, most)
            bound = min(bound, ((top + 1) / scale) ** 2 * SLACK)
        if kept + size > len(far):
            kept = in_order(far, rows, kept, bins, top, scale, distances, found)
            far[:kept], rows[:kept] = distances[:kept], found[:kept]
            bins[:], counted, top, scale = 0, 0, BINS - 1, 0.0
            bound = distances[kept - 1] ** 2 * SLACK
    kept = in_order(far, rows, kept, bins, top, scale, distances, found)
    for k in range(kept, most):
        distances[k], found[k] = distances[kept - 1], found[kept - 1]


@kernel
def queue_up(aside, first, bound, queue, waiting):  # type: ignore[no-untyped-def]
    """The length of the queue, after adding the children of a node that are within the bound."""
    for k in range(len(aside)):
        if aside[k] <= bound:
            waiting = heap_push(queue, waiting, entry(aside[k], first + k))
    return waiting


@kernel
def append(near, own, bound, far, rows, kept):  # type: ignore[no-untyped-def]
    """The number of points kept, after appending those of a bucket that are within the bound."""
    first = kept
    for k in range(len(near)):
        far[kept], rows[kept] = near[k], own[k]
        kept += near[k] <= bound
    for k in range(first, kept):
        far[k] = math.sqrt(far[k])
    return kept


@kernel
def count(far, scale, bins, counted, top, most):  # type: ignore[no-untyped-def]
    """How many points are in the bins up to the top one, and the lowest top that has enough."""
    for distance in far:
        place = bin_of(distance, scale)
        bins[place] += 1
        counted += place <= top
    while counted - bins[top] >= most:
        counted -= bins[top]
        top -= 1
    return counted, top


@kernel
def bin_of(distance, scale):  # type: ignore[no-untyped-def]
    """The bin of a distance; the last one has all that is farther."""
    return min(int(distance * scale), BINS - 1)


@kernel
def in_order(far, rows, kept, bins, top, scale, distances, found):  # type: ignore[no-untyped-def]
    """The number of points filled in, the nearest of those kept: sorted by bins, then inside."""
    if scale == 0:
        bins[0], top = kept, 0
    ends = np.cumsum(bins[: top + 1])
    total = ends[top]
    sorted_far, sorted_rows = np.empty(total), np.empty(total, np.int64)
    for k in range(kept):
        place = bin_of(far[k], scale)
        if place <= top:
            ends[place] -= 1
            sorted_far[ends[place]], sorted_rows[ends[place]] = far[k], rows[k]
    for k in range(1, total):
        sink(sorted_far, sorted_rows, k)
    filled = min(total, len(distances))
    distances[:filled], found[:filled] = sorted_far[:filled], sorted_rows[:filled]
    return filled


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
def point_distances(points, point, away):  # type: ignore[no-untyped-def]
    """Fill in the squared distance to each point, in three and eight dimensions to scipy's bit."""
    if len(point) == 8:
        eight_sides(points, point, away)
        return
    away[:] = 0
    for axis in range(len(point)):
        column, here = points[axis], point[axis]
        for k in range(len(away)):
            away[k] += (column[k] - here) ** 2


@kernel
def eight_sides(points, point, away):  # type: ignore[no-untyped-def]
    """Fill in the squared distances in eight dimensions, where most of the time is spent."""
    a, b, c, d = points[0], points[1], points[2], points[3]
    e, f, g, h = points[4], points[5], points[6], points[7]
    for k in range(len(away)):
        away[k] = (
            ((a[k] - point[0]) ** 2 + (e[k] - point[4]) ** 2)
            + ((b[k] - point[1]) ** 2 + (f[k] - point[5]) ** 2)
            + ((c[k] - point[2]) ** 2 + (g[k] - point[6]) ** 2)
            + ((d[k] - point[3]) ** 2 + (h[k] - point[7]) ** 2)
        )


@kernel
def sink(distances, rows, k):  # type: ignore[no-untyped-def]
    """Move a point to its place among those before it, which are in order."""
    distance, row = distances[k], rows[k]
    while k > 0 and before(distance, row, distances[k - 1], rows[k - 1]):
        distances[k], rows[k] = distances[k - 1], rows[k - 1]
        k -= 1
    distances[k], rows[k] = distance, row


@kernel
def before(distance, row, other_distance, other_row):  # type: ignore[no-untyped-def]
    """Whether one point comes before another one."""
    return distance < other_distance or (distance == other_distance and row < other_row)


@kernel
def entry(distance, node):  # type: ignore[no-untyped-def]
    """A number that sorts by distance, rounded down to single precision, and holds the node."""
    bits = np.float32(min(distance, MOST_SINGLE) * ROUNDED_DOWN).view(np.int32)
    return np.int64(bits) << 32 | node


@kernel
def distance_in(entry):  # type: ignore[no-untyped-def]
    """The distance of an entry, which is no farther than the box."""
    return np.float64(np.int32(entry >> 32).view(np.float32))


@kernel
def node_in(entry):  # type: ignore[no-untyped-def]
    """The node of an entry."""
    return entry & 0xFFFFFFFF


@kernel
def heap_push(heap, size, item):  # type: ignore[no-untyped-def]
    """The size of a heap, least item first, after pushing one."""
    k = size
    while k > 0 and item < heap[(k - 1) // 2]:
        heap[k] = heap[(k - 1) // 2]
        k = (k - 1) // 2
    heap[k] = item
    return size + 1


@kernel
def heap_remove(heap, size):  # type: ignore[no-untyped-def]
    """The size of a heap after removing the least item."""
    size -= 1
    last, k, child = heap[size], 0, 1
    while child < size:
        if child + 1 < size:
            child += heap[child + 1] < heap[child]
        if last <= heap[child]:
            break
        heap[k] = heap[child]
        k, child = child, 2 * child + 1
    heap[k] = last
    return size
