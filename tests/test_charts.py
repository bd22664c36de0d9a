"""The small pictures of pages: places where they belong, colours in their order."""

import pandas as pd
import pytest

from housing_lib import charts, geography


def record(values: list[float]) -> dict:
    """Districts one above the other, from south to north, six of each value."""
    latitudes = [33.1 + 0.2 * number for number in range(len(values)) for _ in range(6)]
    districts = pd.DataFrame({"Latitude": latitudes, "Longitude": -118.1})
    return geography.map_record(districts, pd.Series(values).repeat(6).reset_index(drop=True))


def test_a_map_has_a_square_for_each_place_and_north_is_above():
    drawn = charts.price_map(record([1.0, 2.0, 3.0]))
    assert [square.step for square in drawn.squares] == sorted(s.step for s in drawn.squares)
    assert drawn.squares[0].y > drawn.squares[2].y
    assert drawn.squares[0].words == "33.1° N, 118.1° W ($100,000), 6 districts"


def test_squares_and_cities_lie_within_the_picture():
    drawn = charts.price_map(record([1.0, 2.0]))
    for one in [*drawn.squares, *drawn.cities]:
        assert 0 < one.x < drawn.width
        assert 0 < one.y < drawn.height
    assert {"Los Angeles", "San Francisco"} <= {city.name for city in drawn.cities}


def test_steps_of_errors_lie_evenly_around_zero_and_each_has_its_words():
    drawn = charts.error_map(record([-0.5, -0.2, 0.0, 0.02, 0.5]))
    assert len(drawn.legend) == 7
    assert [drawn.legend[0][6:], drawn.legend[-1].split()[0]] == ["−$50,000", "$50,000"]
    assert [square.step for square in drawn.squares] == [1, 2, 3, 3, 6]


@pytest.mark.parametrize("chart", [charts.price_map, charts.error_map])
def test_equal_values_can_be_drawn_and_a_single_square_is_left_out(chart):
    assert len(chart(record([1.0, 1.0])).squares) == 2
    assert chart(record([1.0])) is None


def test_a_square_of_few_districts_is_drawn_smaller():
    districts = pd.DataFrame({"Latitude": [34.1] * 6 + [36.1], "Longitude": [-118.1] * 7})
    drawn = charts.price_map(geography.map_record(districts, pd.Series([1.0] * 7)))
    many, few = drawn.squares
    assert few.width < many.width


def test_a_trend_runs_from_left_to_right_with_the_highest_on_top():
    drawn = charts.trend([("a", 0.3), ("b", 0.2), ("c", 0.25)], width=100, height=50)
    assert [point[:2] for point in drawn.points] == [(0, 0), (50, 50), (100, 25)]
    assert drawn.points[1][2] == "b: $20,000"
