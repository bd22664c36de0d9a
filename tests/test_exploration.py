"""What is found in the districts before any model."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from housing_lib import data, exploration


@pytest.fixture(scope="module")
def districts() -> pd.DataFrame:
    return data.acquire("bundled").sample(2_000, random_state=1)


def test_findings_count_missing_values_duplicates_and_the_cap(districts):
    everything = pd.concat([districts, districts.iloc[:3]])
    everything.iloc[10, 0] = np.nan
    found = exploration.explore(everything, districts)
    assert (found.rows, found.missing, found.duplicates) == (2_003, 1, 3)
    assert found.capped_rows == (everything["MedHouseVal"] == data.PRICE_CAP).sum()
    assert found.capped == pytest.approx(found.capped_rows / 2_003)


def test_findings_are_plain_numbers_that_a_run_can_record(districts):
    found = exploration.explore(districts, districts)
    assert json.loads(json.dumps(asdict(found))) == asdict(found)


def test_income_and_place_together_explain_more_than_either(districts):
    found = exploration.explore(districts, districts)
    assert found.by_both > max(found.by_income, found.by_place) > 0


def test_groups_that_are_the_price_explain_all_of_it():
    prices = pd.Series([1.0, 1, 2, 2, 3, 3])
    assert exploration.explained_share(prices, prices) == 1


def test_many_random_groups_explain_nothing():
    random = np.random.default_rng(0)
    prices, groups = pd.Series(random.normal(size=5_000)), random.integers(0, 1_000, 5_000)
    assert exploration.explained_share(prices, pd.Series(groups)) == pytest.approx(0, abs=0.05)


def test_a_crowd_at_the_highest_value_is_counted(districts):
    found = exploration.ceilings(districts)
    assert found.loc["HouseAge", "highest"] == 52
    assert found.loc["HouseAge", "districts"] == (districts["HouseAge"] == 52).sum()


def test_a_district_is_none_of_its_own_neighbours():
    row = dict.fromkeys(data.CONTRACT, 1.0)
    places = [(34.0, -118.0), (34.0, -118.0), (38.0, -122.0)]
    districts = pd.DataFrame(
        [
            row | {"Latitude": place[0], "Longitude": place[1], "MedHouseVal": price}
            for place, price in zip(places, (1.0, 2.0, 4.0), strict=True)
        ],
        index=[7, 8, 9],
    )
    found = exploration.neighbours(districts, count=1)
    assert list(found.loc[[7, 8], "price"]) == [2, 1]
    assert found.loc[9, "nearest_km"] == pytest.approx(570, abs=10)
    assert found.loc[7, "nearest_km"] == 0


def test_districts_far_from_all_large_cities_are_elsewhere():
    places = pd.DataFrame({"Latitude": [32.8, 41.7], "Longitude": [-117.1, -124.1]})
    assert list(exploration.regions(places)) == ["San Diego", "elsewhere"]


def test_regions_come_dearest_first_and_hold_every_district(districts):
    table = exploration.by_region(districts)
    assert table["price_usd"].is_monotonic_decreasing
    assert table["districts"].sum() == len(districts)


def test_districts_of_one_square_of_the_map_share_its_name():
    places = pd.DataFrame({"Latitude": [34.01, 34.24, 34.26], "Longitude": [-118.01] * 3})
    squares = exploration.map_squares(places)
    assert squares[0] == squares[1] != squares[2]
