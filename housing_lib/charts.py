"""Small pictures that a page draws itself as SVG: maps of squares, and a figure over time."""

import csv
import io
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, radians
from statistics import quantiles
from typing import Any, NamedTuple

from housing_lib.summary import dollars

SHRINK = cos(radians(37))  # a degree of longitude in those of latitude, in the middle of California
SCALE = 40  # pixels a degree
WEST, EAST, SOUTH, NORTH = -126.2, -114.0, 32.4, 42.1  # California, and room for names
KM_A_DEGREE = 111.2
FEW = 5  # a square of fewer districts is drawn smaller, for it says less


@dataclass(frozen=True)
class Square:
    """One square of a map: its corner and sides in pixels, its step of colour, and its words."""

    x: float
    y: float
    width: float
    height: float
    step: int
    words: str


@dataclass(frozen=True)
class City:
    """The place of a city in pixels."""

    x: float
    y: float
    name: str


@dataclass(frozen=True)
class Map:
    """A map of squares: its size in pixels, the words of its colours, and what stands out."""

    width: float
    height: float
    squares: list[Square]
    cities: list[City]
    legend: list[str]
    side_km: int
    words: str


@dataclass(frozen=True)
class Trend:
    """A figure over time as points in pixels, each with its words, and its lowest and highest."""

    points: list[tuple[float, float, str]]
    low: float
    high: float


class _Place(NamedTuple):
    """The middle of a square in degrees, what it holds on average in dollars, and of how many."""

    latitude: float
    longitude: float
    usd: float
    districts: int


def price_map(recorded: Mapping[str, Any]) -> Map | None:
    """A map of prices from what `geography.map_record` gave, in steps of equal counts.

    None if there is not more than a single square, which leaves nothing to compare.
    """
    places = _read(recorded)
    if len(places) <= 1:
        return None
    bounds = sorted({round(bound, -4) for bound in quantiles([one.usd for one in places], n=7)})
    return _map(recorded, places, bounds)


def error_map(recorded: Mapping[str, Any]) -> Map | None:
    """A map of mean errors from what `geography.map_record` gave, in steps around zero.

    None if there is not more than a single square, which leaves nothing to compare.
    """
    places = _read(recorded)
    if len(places) <= 1:
        return None
    limit = quantiles([abs(one.usd) for one in places], n=10)[-1]
    upper = [max(1_000 * step, round(limit * step / 5, -3)) for step in (1, 3, 5)]
    return _map(recorded, places, [*(-bound for bound in reversed(upper)), *upper])


def _read(recorded: Mapping[str, Any]) -> list[_Place]:
    rows = csv.DictReader(io.StringIO(recorded["squares"]))
    return [
        _Place(float(r["latitude"]), float(r["longitude"]), float(r["usd"]), int(r["districts"]))
        for r in rows
    ]


def _map(recorded: Mapping[str, Any], places: list[_Place], bounds: list[float]) -> Map:
    half = recorded["degrees"] / 2
    width, height = _pixels(SOUTH, EAST)
    squares = [_square(one, half, bounds) for one in places]
    cities = [City(*_pixels(*place), name) for name, place in recorded["cities"].items()]
    side_km = round(recorded["degrees"] * KM_A_DEGREE)
    return Map(width, height, squares, cities, _legend(bounds), side_km, _extremes(places))


def _extremes(places: list[_Place]) -> str:
    """The squares that stand out, in words; only those of enough districts."""
    solid = [one for one in places if one.districts >= FEW] or places
    lowest, highest = (choose(solid, key=lambda one: one.usd) for choose in (min, max))
    return f"lowest at {_where(lowest)}, highest at {_where(highest)}"


def _where(place: _Place) -> str:
    north_and_west = f"{place.latitude:.1f}° N, {-place.longitude:.1f}° W"
    return f"{north_and_west} ({_usd(place.usd)})"


def _pixels(latitude: float, longitude: float) -> tuple[float, float]:
    x, y = (longitude - WEST) * SHRINK * SCALE, (NORTH - latitude) * SCALE
    return round(x, 1), round(y, 1)


def _square(place: _Place, half: float, bounds: list[float]) -> Square:
    half *= 0.95 if place.districts >= FEW else 0.55
    left, top = _pixels(place.latitude + half, place.longitude - half)
    width, height = round(2 * half * SHRINK * SCALE, 1), round(2 * half * SCALE, 1)
    words = f"{_where(place)}, {place.districts} district{'s' if place.districts > 1 else ''}"
    return Square(left, top, width, height, bisect(bounds, place.usd), words)


def _usd(value: float) -> str:
    return f"{'−' if value < 0 else ''}${abs(value):,.0f}"


def _legend(bounds: Sequence[float]) -> list[str]:
    between = [f"{_usd(low)} to {_usd(high)}" for low, high in pairwise(bounds)]
    return [f"below {_usd(bounds[0])}", *between, f"{_usd(bounds[-1])} and more"]


def trend(values: Sequence[tuple[str, float]], *, width: float, height: float) -> Trend:
    """The values of a figure (100,000 USD) in the order of time, with what names each."""
    numbers = [value for _, value in values]
    low, high = min(numbers), max(numbers)
    across, down = width / max(1, len(values) - 1), height / ((high - low) or 1)
    points = [
        (round(across * number, 1), round(down * (high - value), 1), f"{name}: {dollars(value)}")
        for number, (name, value) in enumerate(values)
    ]
    return Trend(points, low, high)
