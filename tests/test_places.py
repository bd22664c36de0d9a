"""Where things are in California."""

import numpy as np
import pytest

from housing_lib import data, places

PLACES = {  # latitude and longitude to hundredths of a degree, as on any map
    "San Francisco": (37.77, -122.42),
    "Fresno": (36.74, -119.79),
    "Los Angeles": (34.05, -118.24),
    "Bakersfield": (35.37, -119.02),
    "Eureka": (40.80, -124.16),
}


def _at(name):
    return tuple(np.array([value]) for value in PLACES[name])


def test_distances_agree_with_known_ones():
    los_angeles, san_francisco = (34.0522, -118.2437), (37.7749, -122.4194)
    kilometres = places.distance_km(*map(np.asarray, los_angeles), *san_francisco)
    assert kilometres == pytest.approx(559, abs=1)  # great-circle distance of the two city halls


def test_places_are_as_far_apart_as_on_the_sphere():
    first, second = (places.places_km(*_at(name))[0] for name in ("San Francisco", "Fresno"))
    direct = places.distance_km(*_at("San Francisco"), *PLACES["Fresno"])[0]
    assert np.linalg.norm(first - second) == pytest.approx(direct, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("San Francisco", 0, 10), ("Fresno", 150, 200), ("Eureka", 0, 5)]
)
def test_the_coast_is_as_far_as_on_a_map(name, low, high):
    distance, along = places.to_coast(*_at(name))
    assert low <= distance[0] <= high
    assert 0 <= along[0] <= 1


def test_along_the_coast_runs_from_north_to_south():
    southward = [places.to_coast(*_at(name))[1][0] for name in ("Eureka", "San Francisco")]
    southward.append(places.to_coast(*_at("Los Angeles"))[1][0])
    assert southward == sorted(southward)


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("San Francisco", "San Francisco Bay"),
        ("Los Angeles", "Los Angeles"),
        ("Fresno", "Central Valley"),
        ("Bakersfield", "Central Valley"),
        ("Eureka", "Northern California"),
    ],
)
def test_places_belong_to_their_regions(name, region):
    assert places.regions(*_at(name)) == [region]


def test_a_missing_place_has_no_region():
    assert places.regions(np.array([np.nan]), np.array([-120.0])) == [places.UNKNOWN]


def test_nearly_all_districts_lie_in_california_and_reno_does_not():
    districts = data.acquire()
    inside = places.in_california(
        districts["Latitude"].to_numpy(), districts["Longitude"].to_numpy()
    )
    assert inside.mean() > 0.97  # the outline is coarse along the coast
    reno, sea = (39.53, -119.81), (35.0, -123.0)
    assert not places.in_california(*(np.array(axis) for axis in zip(reno, sea, strict=True))).any()


def test_places_of_a_square_share_its_number_and_missing_ones_are_nowhere():
    latitude, longitude = np.array([34.01, 34.24, 34.26, np.nan]), np.array([-118.01] * 4)
    first, same, other, missing = places.squares(latitude, longitude, degrees=0.25)
    assert first == same != other
    assert missing == places.NOWHERE not in {first, other}
