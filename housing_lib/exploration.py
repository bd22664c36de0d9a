"""What income, place and neighbours say about the prices of districts, before any model."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from housing_lib.data import CONTRACT, PRICE_CAP, TARGET, USD_PER_UNIT
from housing_lib.geography import CITIES, EARTH_RADIUS_KM, distance_km

NEAR_KM = 100
MOST_ROOMS = 20
MOST_PEOPLE = 10
PLACE = ["Latitude", "Longitude"]


@dataclass(frozen=True)
class Findings:
    """What a model builder must know of the districts; shares are from 0 to 1.

    `by_income`, `by_place`, `by_both` and `by_neighbours` are the shares of the
    prices' variance that the tenth of income, the square of the map, the two
    together, and the mean price of the ten nearest districts explain.
    """

    rows: int
    missing: int
    duplicates: int
    capped_rows: int
    capped: float
    explored_rows: int
    many_rooms: int
    many_people: int
    highest_people: float
    same_place: float
    nearest_km: float
    neighbour_correlation: float
    by_income: float
    by_place: float
    by_both: float
    by_neighbours: float

    @property
    def explained(self) -> pd.Series:
        """The share of the prices' variance that each explanation accounts for."""
        return pd.Series(
            {
                "tenth of income": self.by_income,
                "square of the map": self.by_place,
                "income and square": self.by_both,
                "ten nearest districts": self.by_neighbours,
            }
        )


def explore(everything: pd.DataFrame, districts: pd.DataFrame) -> Findings:
    """The findings: the state of `everything`, and what the prices of `districts` follow.

    Parameters
    ----------
    everything
        All districts, with missing values where there are some.
    districts
        Those that may be looked at before the final test, without missing values.
    """
    prices, around = districts[TARGET], neighbours(districts)
    income, square = tenths(districts["MedInc"]), map_squares(districts)
    together = float(prices.corr(around["price"]))
    return Findings(
        rows=len(everything),
        missing=int(everything.isna().sum().sum()),
        duplicates=int(everything.duplicated().sum()),
        capped_rows=int((everything[TARGET] >= PRICE_CAP).sum()),
        capped=float((everything[TARGET] >= PRICE_CAP).mean()),
        explored_rows=len(districts),
        many_rooms=int((districts["AveRooms"] > MOST_ROOMS).sum()),
        many_people=int((districts["AveOccup"] > MOST_PEOPLE).sum()),
        highest_people=float(districts["AveOccup"].max()),
        same_place=float(districts.duplicated(PLACE, keep=False).mean()),
        nearest_km=float(around["nearest_km"].median()),
        neighbour_correlation=together,
        by_income=explained_share(prices, income),
        by_place=explained_share(prices, square),
        by_both=explained_share(prices, square + " " + income.astype(str)),
        by_neighbours=together**2,
    )


def ceilings(districts: pd.DataFrame) -> pd.DataFrame:
    """The highest value of each column, and how many districts stand exactly there.

    A crowd at the highest value means that the census stopped counting there.
    """
    highest = districts.max()
    there = districts.eq(highest).sum()
    units = [CONTRACT[name].unit for name in districts.columns]
    table = pd.DataFrame({"unit": units, "highest": highest, "districts": there})
    return table.assign(percent=100 * there / len(districts)).round(2)


def explained_share(prices: pd.Series, groups: pd.Series) -> float:
    """The share of the prices' variance that lies between `groups`.

    Epsilon squared (Kelley 1935): unlike R², it does not grow with the mere
    number of groups, so it may fall a little below 0 where groups say nothing.
    """
    within = (prices - prices.groupby(groups).transform("mean")).pow(2).sum()
    freedom = len(prices) - groups.nunique()
    return float(1 - (within / freedom) / prices.var())


def tenths(values: pd.Series) -> pd.Series:
    """The tenth of the districts, 0 to 9, that each value belongs to."""
    return pd.Series(pd.qcut(values, 10, labels=False, duplicates="drop"), index=values.index)


def map_squares(districts: pd.DataFrame, *, degrees: float = 0.25) -> pd.Series:
    """The square of the map, `degrees` wide and high, that each district lies in."""
    rows, columns = np.floor(districts[PLACE].to_numpy().T / degrees).astype(int)
    squares = [f"{row}/{column}" for row, column in zip(rows, columns, strict=True)]
    return pd.Series(squares, index=districts.index)


def city_name(city: str) -> str:
    """The name of a city as people write it.

    >>> city_name("SanDiego")
    'San Diego'
    """
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", city)


def regions(districts: pd.DataFrame) -> pd.Series:
    """The nearest large city of each district, or `elsewhere` beyond 100 km of all."""
    latitude, longitude = districts["Latitude"].to_numpy(), districts["Longitude"].to_numpy()
    distances = pd.DataFrame(
        {
            city_name(city): distance_km(latitude, longitude, *place)
            for city, place in CITIES.items()
        },
        index=districts.index,
    )
    return distances.idxmin(axis=1).where(distances.min(axis=1) <= NEAR_KM, "elsewhere")


def by_region(districts: pd.DataFrame) -> pd.DataFrame:
    """One row a region, dearest first: medians, capped prices, and how far income goes.

    `rank_correlation` is Spearman's, of income and price within the region.
    """
    capped = districts[TARGET] >= PRICE_CAP
    groups = districts.assign(capped=capped).groupby(regions(districts).rename("region"))
    pairs = groups[["MedInc", TARGET]].corr(method="spearman")["MedInc"]
    table = pd.DataFrame(
        {
            "districts": groups.size(),
            "price_usd": (groups[TARGET].median() * USD_PER_UNIT).round(-2).astype(int),
            "income_usd": (groups["MedInc"].median() * 10_000).round(-2).astype(int),
            "capped_percent": 100 * groups["capped"].mean(),
            "rank_correlation": pairs.xs(TARGET, level=-1),
        }
    )
    return table.rename_axis(None).sort_values("price_usd", ascending=False).round(2)


def neighbours(districts: pd.DataFrame, *, count: int = 10) -> pd.DataFrame:
    """What surrounds each district: `nearest_km`, and `price`, the mean of its neighbours.

    The `count` nearest districts are its neighbours; it is none of its own.
    """
    places = np.deg2rad(districts[PLACE].to_numpy())
    index = NearestNeighbors(n_neighbors=count, metric="haversine").fit(places)
    angles, rows = index.kneighbors()
    prices = districts[TARGET].to_numpy()[rows].mean(axis=1)
    return pd.DataFrame(
        {"nearest_km": angles[:, 0] * EARTH_RADIUS_KM, "price": prices}, index=districts.index
    )
