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
    revised = pd.concat([everything, districts.iloc[:1].assign(MedHouseVal=1.0)])
    assert exploration.explore(revised, districts).duplicates == data.duplicates(revised) == 4
    dear = districts.assign(MedHouseVal=districts["MedHouseVal"] + 10)
    assert exploration.explore(dear, dear).capped_rows == 0


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


def test_columns_without_any_value_or_with_one_tell_no_district_from_another(districts):
    holed = districts.assign(MedInc=np.nan)
    holed.iloc[:5, 1] = np.nan
    assert exploration.empty_columns(holed) == ["MedInc"]
    left = exploration.complete(holed)
    assert len(left) == len(districts) - 5
    for alike in (left, districts.assign(MedInc=3.0)):
        found = exploration.explore(holed, alike)
        assert found.by_income == 0
        assert found.by_both == found.by_place > 0
        assert found.moran_rest == pytest.approx(found.moran)


def test_where_nobody_lives_in_a_household_their_number_is_unknown(districts):
    none = districts.copy()
    none.iloc[:5, 5] = 0
    assert exploration.households(none).isna().sum() == 5
    assert exploration.by_households(none)["districts"].sum() == len(none) - 5


def test_every_column_says_what_it_means(districts):
    found = exploration.columns(districts)
    assert found.loc["AveOccup", "meaning"] == "people per household"
    assert found.loc["HouseAge", "highest"] == districts["HouseAge"].max()


def test_a_crowd_at_the_highest_value_is_counted(districts):
    found = exploration.ceilings(districts)
    assert found.loc["HouseAge", "highest"] == 52
    assert found.loc["HouseAge", "districts"] == (districts["HouseAge"] == 52).sum()


def test_averages_over_few_households_spread_further():
    everything = data.acquire("bundled")
    table = exploration.by_households(everything)
    assert table["districts"].sum() == len(everything)
    assert table["spread of AveRooms"].iloc[0] > 2 * table["spread of AveRooms"].iloc[-1]


def test_the_oddest_districts_come_first_with_their_households(districts):
    found = exploration.oddest(districts)
    assert found["AveOccup"].iloc[0] == districts["AveOccup"].max()
    assert found["households"].to_numpy() == pytest.approx(
        found["people"] / found["AveOccup"], abs=1
    )


def test_what_income_leaves_is_zero_on_average_in_each_tenth(districts):
    rest = exploration.beyond_income(districts)
    means = rest.groupby(exploration.tenths(districts["MedInc"])).mean()
    assert means.to_numpy() == pytest.approx(0, abs=1e-9)


def test_a_table_for_a_reader_has_whole_counts_words_and_the_minus_of_print():
    table = pd.DataFrame({"unit": ["degrees"], "lowest": [-124.351], "distinct": [12_928]})
    page = exploration.styled(table.assign(zero=[-0.001]), precision=2).to_html()
    for shown in ("degrees", "−124.35", "12,928", ">0.00<"):
        assert shown in page
    assert "-124" not in page
