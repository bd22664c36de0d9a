"""What place says about prices."""

import numpy as np
import pandas as pd
import pytest

from housing_lib import data, geography


@pytest.fixture(scope="module")
def districts() -> pd.DataFrame:
    return data.acquire("bundled").sample(2_000, random_state=1)


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
    found = geography.neighbours(districts, count=1)
    assert list(found.loc[[7, 8], "price"]) == [2, 1]
    assert found.loc[9, "nearest_km"] == pytest.approx(570, abs=10)
    assert found.loc[7, "nearest_km"] == 0


def test_districts_belong_to_their_regions():
    places = pd.DataFrame({"Latitude": [32.8, 41.7], "Longitude": [-117.1, -124.1]})
    assert list(geography.regions(places)) == ["San Diego", "Northern California"]


def test_regions_come_dearest_first_and_hold_every_district(districts):
    table = geography.by_region(districts)
    assert table["median price ($)"].is_monotonic_decreasing
    assert table["districts"].sum() == len(districts)


def test_districts_of_one_square_of_the_map_share_its_name():
    places = pd.DataFrame({"Latitude": [34.01, 34.24, 34.26], "Longitude": [-118.01] * 3})
    squares = geography.map_squares(places)
    assert squares[0] == squares[1] != squares[2]


def test_a_map_record_has_a_row_for_each_square_with_its_mean_and_count():
    places = pd.DataFrame(
        {"Latitude": [34.01, 34.19, 36.5], "Longitude": [-118.01, -118.1, -120.1]}
    )
    recorded = geography.map_record(places, pd.Series([1.0, 2.0, 3.0]))
    assert recorded["squares"].splitlines() == [
        "latitude,longitude,usd,districts",
        "34.1,-118.1,150000,2",
        "36.5,-120.1,300000,1",
    ]
    assert recorded["cities"]["San Diego"] == pytest.approx([32.7, -117.2], abs=0.1)


def test_neighbours_of_prices_are_alike_and_those_of_noise_are_not(districts):
    noise = pd.Series(np.random.default_rng(0).normal(size=len(districts)), index=districts.index)
    assert geography.morans_i(districts, districts[data.TARGET]) > 0.5
    assert geography.morans_i(districts, noise) == pytest.approx(0, abs=0.05)


def test_a_variogram_of_noise_is_flat_and_that_of_latitude_rises(districts):
    noise = np.random.default_rng(0).normal(size=len(districts))
    values = pd.DataFrame({"noise": noise, "north": districts["Latitude"]}, index=districts.index)
    found = geography.variogram(districts, values, sample=800)
    assert found["noise"].iloc[3:].between(0.85, 1.15).all()
    assert found["north"].is_monotonic_increasing
    assert found["north"].iloc[0] < 0.05


def test_pairs_at_the_same_place_are_pairs_too(districts):
    twice = pd.concat([districts.head(200)] * 2, ignore_index=True)
    found = geography.variogram(twice, twice[[data.TARGET]])
    apart = geography.variogram(twice.head(200), twice[[data.TARGET]].head(200))
    assert found.iloc[0, 0] < apart.iloc[0, 0]


def test_a_rule_of_equal_incomes_is_level(districts):
    assert np.diag(geography.transfer(districts.assign(MedInc=0.0))) == pytest.approx(0, abs=1e-9)


def test_values_that_never_become_strangers_reach_without_end():
    assert geography.reach_km(pd.Series([0.1, 0.2], index=[1, 2])) is None


def test_a_rule_is_right_on_average_where_it_was_learned_and_wrong_elsewhere(districts):
    found = geography.transfer(districts)
    assert np.diag(found) == pytest.approx(0, abs=1e-9)
    assert (
        found.loc["San Francisco Bay", "Central Valley"]
        > 0.5
        > -0.5
        > found.loc["Central Valley", "San Francisco Bay"]
    )


def test_errors_of_regions_are_in_dollars_and_the_largest_come_first(districts):
    errors = pd.Series(0.1, index=districts.index)
    errors[geography.regions(districts) == "Central Valley"] = -0.5
    table = geography.errors_by_region(districts, errors)
    assert table.index[0] == "Central Valley"
    assert table.loc["Central Valley", ["MAE ($)", "mean error ($)"]].to_list() == [50_000, -50_000]
    assert table["districts"].sum() == len(districts)
