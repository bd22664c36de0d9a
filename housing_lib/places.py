"""Where things are in California: cities, coast, border, regions, and distances to them."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from housing_lib.data import Floats
from housing_lib.nearness import grow, nearest

EARTH_RADIUS_KM = 6371.0088
CITIES = {
    "LosAngeles": (34.05, -118.24),
    "SanFrancisco": (37.77, -122.42),
    "SanDiego": (32.72, -117.16),
    "SanJose": (37.34, -121.89),
    "Sacramento": (38.58, -121.49),
    "Fresno": (36.74, -119.79),
}
# Capes, harbours and river mouths from the border of Oregon to that of Mexico.
COAST = np.array(
    [
        (41.99, -124.21), (41.75, -124.20), (41.06, -124.15), (40.80, -124.19), (40.44, -124.41),
        (40.03, -124.07), (39.44, -123.81), (38.95, -123.74), (38.31, -123.05), (38.00, -123.02),
        (37.81, -122.48), (37.61, -122.50), (37.46, -122.43), (37.11, -122.33), (36.96, -122.03),
        (36.80, -121.79), (36.62, -121.91), (36.31, -121.90), (36.02, -121.55), (35.78, -121.33),
        (35.56, -121.11), (35.37, -120.87), (35.14, -120.64), (34.90, -120.67), (34.58, -120.65),
        (34.45, -120.47), (34.47, -120.23), (34.40, -119.69), (34.27, -119.29), (34.09, -119.06),
        (34.00, -118.81), (34.01, -118.50), (33.84, -118.39), (33.74, -118.41), (33.71, -118.29),
        (33.76, -118.19), (33.66, -118.00), (33.60, -117.90), (33.46, -117.71), (33.19, -117.39),
        (32.85, -117.28), (32.67, -117.24), (32.53, -117.12),
    ]
)  # fmt: skip
# The rest of the border: along the Colorado, Nevada and Oregon, back to where the coast begins.
INLAND_BORDER = np.array(
    [(32.72, -114.72), (33.60, -114.53), (34.30, -114.14), (34.87, -114.63), (35.00, -114.63),
     (39.00, -120.00), (42.00, -120.00)]
)  # fmt: skip
# A place belongs to the region of the nearest of these cities.
REGIONS = {
    "San Francisco Bay": [(37.75, -122.30), (37.34, -121.89)],
    "Sacramento": [(38.58, -121.49)],
    "Central Valley": [(36.74, -119.79), (37.64, -121.00), (35.37, -119.02)],
    "Central Coast": [(35.28, -120.66), (34.42, -119.70)],
    "Los Angeles": [(34.05, -118.25)],
    "Inland Empire": [(33.95, -117.40)],
    "San Diego": [(32.78, -117.10)],
    "Northern California": [(40.59, -122.39)],
}
UNKNOWN = "unknown"
NOWHERE = 0  # the square of places that are missing
_STEPS = 40  # points on each stretch of coast, so that they are about a kilometre apart


def places_km(latitude: Floats, longitude: Floats) -> Floats:
    """Places on the sphere, shape (rows, 3): the distance between two is in kilometres."""
    phi, turn = np.deg2rad(latitude), np.deg2rad(longitude)
    across = np.cos(phi)
    places: Floats = EARTH_RADIUS_KM * np.column_stack(
        [across * np.cos(turn), across * np.sin(turn), np.sin(phi)]
    )
    return places


def distance_km(
    latitude: Floats, longitude: Floats, to_latitude: float, to_longitude: float
) -> Floats:
    """The great-circle distance in kilometres, by the haversine formula."""
    phi, to_phi = np.deg2rad(latitude), np.deg2rad(to_latitude)
    half_rise = (to_phi - phi) / 2
    half_turn = np.deg2rad(to_longitude - longitude) / 2
    chord = np.sin(half_rise) ** 2 + np.cos(phi) * np.cos(to_phi) * np.sin(half_turn) ** 2
    distance: Floats = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(chord))
    return distance


def coast_points() -> Floats:
    """Points along the coast, from north to south, shape (points, 2): latitude and longitude."""
    knots = np.arange(len(COAST))
    along = np.linspace(0, knots[-1], _STEPS * knots[-1] + 1)
    return np.column_stack([np.interp(along, knots, COAST[:, axis]) for axis in (0, 1)])


@lru_cache(maxsize=1)
def _coast() -> KDTree:
    return grow(places_km(*coast_points().T))


def to_coast(latitude: Floats, longitude: Floats) -> tuple[Floats, Floats]:
    """The kilometres to the coast, and how far south its nearest point lies, from 0 to 1."""
    coast = _coast()
    distances, found = nearest(coast, places_km(latitude, longitude), 1)
    return distances[:, 0], found[:, 0] / (coast.n - 1)


def regions(latitude: Floats, longitude: Floats) -> npt.NDArray[np.str_]:
    """The name of each place's region, a key of `REGIONS`; `UNKNOWN` where a place is missing."""
    names = [name for name, cities in REGIONS.items() for _ in cities]
    cities = [city for one in REGIONS.values() for city in one]
    distances = np.array([distance_km(latitude, longitude, *city) for city in cities])
    known = np.isfinite(distances).all(axis=0)
    nearest = np.where(known, distances, 0).argmin(axis=0)
    return np.where(known, np.array(names)[nearest], UNKNOWN)


def squares(latitude: Floats, longitude: Floats, *, degrees: float) -> npt.NDArray[np.int64]:
    """The number of each place's square of the map, `degrees` wide and high.

    Places that are missing are one square more, `NOWHERE`.
    """
    rows, columns = np.floor(latitude / degrees), np.floor(longitude / degrees)
    numbers = rows * 10_000 + columns
    return np.where(np.isfinite(numbers), numbers, NOWHERE).astype("int64")


def in_california(latitude: Floats, longitude: Floats) -> npt.NDArray[np.bool_]:
    """Which places lie inside California's outline, by the crossings of a ray to the east."""
    outline = np.vstack([COAST, INLAND_BORDER])
    (from_lat, from_lon), (to_lat, to_lon) = outline.T, np.roll(outline, -1, axis=0).T
    lat, lon = np.asarray(latitude)[:, None], np.asarray(longitude)[:, None]
    spans = (from_lat > lat) != (to_lat > lat)
    rise = np.where(from_lat == to_lat, 1.0, to_lat - from_lat)
    crossing = from_lon + (lat - from_lat) / rise * (to_lon - from_lon)
    inside: npt.NDArray[np.bool_] = (spans & (lon < crossing)).sum(axis=1) % 2 == 1
    return inside
