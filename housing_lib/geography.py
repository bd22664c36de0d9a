"""What place says about prices: neighbours, distance, regions, and squares of the map."""

import re
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import haversine_distances
from sklearn.neighbors import NearestNeighbors

from housing_lib import places
from housing_lib.data import TARGET, USD_PER_UNIT, Floats, capped
from housing_lib.places import CITIES, EARTH_RADIUS_KM, distance_km

PLACE = ["Latitude", "Longitude"]
NEIGHBOURS = 10
MAP_DEGREES = 0.2
STEPS_KM = (0, 1, 2, 5, 10, 20, 50, 100, 200, 400)
NEARLY_STRANGERS = 0.8  # who differs by this share of what strangers do has little in common


def city_name(city: str) -> str:
    """The name of a city as people write it.

    >>> city_name("SanDiego")
    'San Diego'
    """
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", city)


def city_distances(districts: pd.DataFrame) -> pd.DataFrame:
    """The distance of each district to each large city, in km."""
    latitude, longitude = districts["Latitude"].to_numpy(), districts["Longitude"].to_numpy()
    return pd.DataFrame(
        {
            city_name(city): distance_km(latitude, longitude, *place)
            for city, place in CITIES.items()
        },
        index=districts.index,
    )


def regions(districts: pd.DataFrame) -> pd.Series:
    """The region of each district, by name."""
    found = places.regions(districts["Latitude"].to_numpy(), districts["Longitude"].to_numpy())
    return pd.Series(found, index=districts.index)


def by_region(districts: pd.DataFrame) -> pd.DataFrame:
    """One row a region, dearest first: medians, capped prices, and how far income goes.

    The rank correlation is Spearman's, of income and price within the region.
    """
    at_cap = capped(districts[TARGET])
    groups = districts.assign(capped=at_cap).groupby(regions(districts).rename("region"))
    pairs = groups[["MedInc", TARGET]].corr(method="spearman")["MedInc"]
    table = pd.DataFrame(
        {
            "districts": groups.size(),
            "median price ($)": (groups[TARGET].median() * USD_PER_UNIT).round(-2).astype(int),
            "median income ($)": (groups["MedInc"].median() * 10_000).round(-2).astype(int),
            "at the cap (%)": 100 * groups["capped"].mean(),
            "rank correlation": pairs.xs(TARGET, level=-1),
        }
    )
    return table.rename_axis(None).sort_values("median price ($)", ascending=False).round(2)


def transfer(districts: pd.DataFrame) -> pd.DataFrame:
    """The mean error where a rule learned in one region (row) prices another (column).

    The rule is the straight line through income and price of the row's region;
    errors are in 100,000 USD, above zero where it asks too much.
    """
    groups = dict(list(districts.groupby(regions(districts))))
    dearest_first = sorted(groups, key=lambda name: -groups[name][TARGET].median())
    lines = {name: _line(group["MedInc"], group[TARGET]) for name, group in groups.items()}
    errors = {
        there: [
            float((np.polyval(lines[here], groups[there]["MedInc"]) - groups[there][TARGET]).mean())
            for here in dearest_first
        ]
        for there in dearest_first
    }
    return pd.DataFrame(errors, index=dearest_first)


def _line(incomes: pd.Series, prices: pd.Series) -> Floats:
    """The straight line through both; a level one where all incomes are the same."""
    return np.polyfit(incomes, prices, int(incomes.nunique() > 1))


def neighbours(districts: pd.DataFrame, *, count: int = NEIGHBOURS) -> pd.DataFrame:
    """What surrounds each district: `nearest_km`, and `price`, the mean of its neighbours.

    The `count` nearest districts are its neighbours; it is none of its own.
    """
    angles, rows = _nearest(districts, count)
    prices = districts[TARGET].to_numpy()[rows].mean(axis=1)
    return pd.DataFrame(
        {"nearest_km": angles[:, 0] * EARTH_RADIUS_KM, "price": prices}, index=districts.index
    )


def _nearest(districts: pd.DataFrame, count: int) -> tuple[Floats, Any]:
    radians = np.deg2rad(districts[PLACE].to_numpy())
    search = NearestNeighbors(n_neighbors=count, metric="haversine").fit(radians)
    angles, rows = search.kneighbors()
    return angles, rows


def morans_i(districts: pd.DataFrame, values: pd.Series) -> float:
    """Moran's I of `values` over the ten nearest districts (Moran 1950).

    1 where neighbours are equal, about 0 where place says nothing.
    """
    centred = values.to_numpy() - values.mean()
    _, rows = _nearest(districts, NEIGHBOURS)
    return float((centred * centred[rows].mean(axis=1)).sum() / (centred**2).sum())


def variogram(
    districts: pd.DataFrame, values: pd.DataFrame, *, sample: int = 2_000, seed: int = 0
) -> pd.DataFrame:
    """How much two districts differ by how far they are apart (Matheron 1963).

    Half the mean squared difference of each column of `values`, as a share of
    its variance: 1 is what two strangers differ by. The index is the largest
    distance of each step in km; pairs are those of a random `sample`.
    """
    drawn = districts.sample(min(sample, len(districts)), random_state=seed).index
    first, second = np.triu_indices(len(drawn), k=1)
    angles = haversine_distances(np.deg2rad(districts.loc[drawn, PLACE].to_numpy()))
    apart_km = angles[first, second] * EARTH_RADIUS_KM
    steps = pd.cut(apart_km, STEPS_KM, labels=STEPS_KM[1:], include_lowest=True)
    shares = {}
    for name, column in values.loc[drawn].items():
        numbers = column.to_numpy()
        half_squares = pd.Series((numbers[first] - numbers[second]) ** 2 / 2)
        shares[name] = half_squares.groupby(steps, observed=True).mean() / numbers.var()
    return pd.DataFrame(shares).rename_axis("km")


def reach_km(steps: pd.Series) -> float | None:
    """The distance from which on two districts are nearly strangers; None if they never are.

    Parameters
    ----------
    steps
        One column of `variogram`.
    """
    strange = steps.index[steps >= NEARLY_STRANGERS]
    return float(strange[0]) if len(strange) else None


def map_squares(districts: pd.DataFrame, *, degrees: float = 0.25) -> pd.Series:
    """The number of the square of the map, `degrees` wide and high, that each district lies in."""
    found = places.squares(*districts[PLACE].to_numpy().T, degrees=degrees)
    return pd.Series(found, index=districts.index)


def map_record(districts: pd.DataFrame, values: pd.Series) -> dict[str, Any]:
    """What a page needs to draw `values` (100,000 USD) on a map: squares of their means.

    `squares` is CSV, one row a square: its middle in degrees, its mean in
    dollars, and how many districts that is of.
    """
    corners = np.floor(districts[PLACE] / MAP_DEGREES)
    groups = values.groupby([corners["Latitude"], corners["Longitude"]])
    squares = pd.DataFrame({"usd": groups.mean() * USD_PER_UNIT, "districts": groups.size()})
    middles = ((squares.index.to_frame(index=False) + 0.5) * MAP_DEGREES).round(2)
    middles.columns = ["latitude", "longitude"]
    table = middles.join(squares.round(0).astype(int).reset_index(drop=True))
    cities = {city_name(city): list(place) for city, place in CITIES.items()}
    return {"degrees": MAP_DEGREES, "squares": table.to_csv(index=False), "cities": cities}


def errors_by_region(districts: pd.DataFrame, errors: pd.Series) -> pd.DataFrame:
    """One row a region, largest MAE first: what a model asks there, in dollars.

    `mean error ($)` is above zero where the model asks too much.
    """
    dollars = pd.DataFrame({"error": errors, "size": errors.abs(), "price": districts[TARGET]})
    groups = (dollars * USD_PER_UNIT).groupby(regions(districts).rename("region"))
    means = groups.mean()
    table = pd.DataFrame(
        {
            "districts": groups.size(),
            "mean price ($)": means["price"],
            "MAE ($)": means["size"],
            "MAE (% of the price)": 100 * means["size"] / means["price"],
            "mean error ($)": means["error"],
        }
    )
    return table.sort_values("MAE ($)", ascending=False)
