"""The nearest of many points, found by compiled code.

Points lie in buckets, which are measured as a whole, and buckets in a tree of boxes,
whose nearest are opened first (priority search, Arya and Mount 1993). Which points are
the nearest, and in which order, `nearness` says.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from housing_lib.contract import Singles
from housing_lib.jit import kernel

BINS = 128  # of distances, which tell what is near enough without sorting
SPARE = 16  # buckets that are kept before they are sorted out
FEW_WAIT = 256  # boxes in the queue; for more of them it grows
FEW_TO_SORT = 100  # points that are put in order by counting those before each
NOTHING, SMALLEST, MOST = np.float32(0), np.float32(1e-30), np.float32(3e38)
ROUNDED = np.float32(1 + 1e-6)  # more than a root, a product and a quotient lose


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

    buckets: Singles
    rows: npt.NDArray[np.int32]
    boxes: Singles


@kernel
def nearest(search, point, squares, found):  # type: ignore[no-untyped-def]
    """Fill in the squared distances and the rows of the nearest points, the nearest first.

    Where there are too few, the farthest stands for the others.
    """
    inner, size, fan = len(search.boxes), search.buckets.shape[2], search.boxes.shape[3]
    near, aside, limit = np.empty(size, np.float32), np.empty(fan, np.float32), MOST
    waiting, most, queue = 1, len(squares), np.zeros(FEW_WAIT, np.int64)
    kept, entries = 0, np.empty(most + SPARE * size, np.int64)
    bins, counted, top, scale = np.zeros(BINS, np.int64), 0, BINS - 1, NOTHING
    while waiting > 0 and square_in(queue[0]) <= limit:
        node = number_in(queue[0])
        waiting = heap_remove(queue, waiting)
        if node < inner:
            box_distances(search.boxes[node], point, aside)
            if waiting + fan > len(queue):
                queue = np.concatenate((queue, queue))
            waiting = queue_up(aside, fan * node + 1, limit, queue, waiting)
            continue
        point_distances(search.buckets[node - inner], point, near)
        first, kept = kept, append(near, search.rows[node - inner], limit, entries, kept)
        if scale == 0 and kept >= most:
            first, scale = 0, np.float32(BINS) / farthest(entries[:kept])
        if scale > 0:
            counted, top = count(entries[first:kept], scale, bins, counted, top, most)
            limit = min(limit, square(np.float32(top + 1) / scale) * ROUNDED)
        if kept + size > len(entries):
            kept = sort(entries, kept, limit, most)
            bins[:], counted, top, scale = 0, 0, BINS - 1, NOTHING
            limit = square_in(entries[kept - 1])
    kept = sort(entries, kept, limit, most)
    for k in range(most):
        squares[k] = square_in(entries[min(k, kept - 1)])
        found[k] = number_in(entries[min(k, kept - 1)])


@kernel
def queue_up(aside, first, limit, queue, waiting):  # type: ignore[no-untyped-def]
    """The length of the queue, after adding the children of a node that are within the limit."""
    for k in range(len(aside)):
        if aside[k] <= limit:
            waiting = heap_push(queue, waiting, entry(aside[k], first + k))
    return waiting


@kernel
def append(near, own, limit, entries, kept):  # type: ignore[no-untyped-def]
    """The number of points kept, after appending those of a bucket that are within the limit."""
    within = 0
    for k in range(len(near)):
        within += near[k] <= limit
    if within == 0:
        return kept
    for k in range(len(near)):
        entries[kept] = entry(near[k], own[k])
        kept += near[k] <= limit
    return kept


@kernel
def farthest(entries):  # type: ignore[no-untyped-def]
    """The largest distance, which is not nothing."""
    return max(math.sqrt(square_in(entries.max())), SMALLEST)


@kernel
def count(entries, scale, bins, counted, top, most):  # type: ignore[no-untyped-def]
    """How many points are in the bins up to the top one, and the lowest top that has enough."""
    for one in entries:
        place = min(int(math.sqrt(square_in(one)) * scale), BINS - 1)
        bins[place] += 1
        counted += place <= top
    while counted - bins[top] >= most:
        counted -= bins[top]
        top -= 1
    return counted, top


@kernel
def sort(entries, kept, limit, most):  # type: ignore[no-untyped-def]
    """How many entries are left, in order: those within the limit, and not more than most."""
    total = 0
    for k in range(kept):
        entries[total], within = entries[k], square_in(entries[k]) <= limit
        total += within
    if total > FEW_TO_SORT:
        entries[:total].sort()
        return min(total, most)
    unsorted = entries[:total].copy()
    for k in range(total):
        place = 0
        for other in unsorted:
            place += other < unsorted[k]
        entries[place] = unsorted[k]
    return min(total, most)


@kernel
def box_distances(boxes, point, away):  # type: ignore[no-untyped-def]
    """Fill in the squared distance to each box, which is rounded as those of its points are."""
    away[:] = 0
    for axis in range(len(point)):
        low, high, here = boxes[0, axis], boxes[1, axis], point[axis]
        for box in range(len(away)):
            away[box] += square(max(max(low[box] - here, here - high[box]), NOTHING))


@kernel
def point_distances(points, point, away):  # type: ignore[no-untyped-def]
    """Fill in the squared distance to each point."""
    if len(point) == 8:
        eight_sides(points, point, away)
        return
    away[:] = 0
    for axis in range(len(point)):
        column, here = points[axis], point[axis]
        for k in range(len(away)):
            away[k] += square(column[k] - here)


@kernel
def eight_sides(points, point, away):  # type: ignore[no-untyped-def]
    """Fill in the squared distances in eight dimensions, where most of the time is spent."""
    a, b, c, d = points[0], points[1], points[2], points[3]
    e, f, g, h = points[4], points[5], points[6], points[7]
    for k in range(len(away)):
        total = square(a[k] - point[0]) + square(b[k] - point[1])
        total = total + square(c[k] - point[2]) + square(d[k] - point[3])
        total = total + square(e[k] - point[4]) + square(f[k] - point[5])
        away[k] = total + square(g[k] - point[6]) + square(h[k] - point[7])


@kernel
def square(side):  # type: ignore[no-untyped-def]
    """The square in the side's own precision; a power would be in double."""
    return side * side


@kernel
def entry(square, number):  # type: ignore[no-untyped-def]
    """What sorts by squared distance, then by the number of a node or a row, and holds both."""
    return np.int64(np.float32(square).view(np.int32)) << 32 | np.int64(number)


@kernel
def square_in(entry):  # type: ignore[no-untyped-def]
    """The squared distance of an entry."""
    return np.int32(entry >> 32).view(np.float32)


@kernel
def number_in(entry):  # type: ignore[no-untyped-def]
    """The number of an entry."""
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
