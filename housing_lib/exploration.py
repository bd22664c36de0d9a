"""What must be known of the districts before any model: their state, and what prices follow."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from housing_lib import geography
from housing_lib.data import CONTRACT, TARGET, USD_PER_UNIT, capped, duplicates, summarise

MOST_ROOMS = 20
MOST_PEOPLE = 10
HOUSEHOLD_SHARES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 1)


@dataclass(frozen=True)
class Findings:
    """What a model builder must know of the districts; shares are from 0 to 1.

    `by_income`, `by_place`, `by_both` and `by_neighbours` are the shares of the
    prices' variance that the tenth of income, the square of the map, the two
    together, and the mean price of the ten nearest districts explain. `moran`
    is Moran's I of the prices, `moran_rest` that of what income leaves of them,
    which differs nearly like that of strangers from `reach_km` on.
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
    moran: float
    moran_rest: float
    reach_km: float | None

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


def complete(districts: pd.DataFrame) -> pd.DataFrame:
    """The districts without missing values.

    In a column without any value all of them get the lowest that is possible, so that
    it tells none from another, and the other columns can be looked at.
    """
    lowest = {name: CONTRACT[name].low for name in empty_columns(districts)}
    return districts.fillna(lowest).dropna()


def empty_columns(districts: pd.DataFrame) -> list[str]:
    """The columns in which no district has a value."""
    return list(districts.columns[districts.isna().all()])


def explore(everything: pd.DataFrame, districts: pd.DataFrame) -> Findings:
    """The findings: the state of `everything`, and what the prices of `districts` follow.

    Parameters
    ----------
    everything
        All districts, with missing values where there are some.
    districts
        Those that may be looked at before the final test, without missing values.
    """
    prices, around = districts[TARGET], geography.neighbours(districts)
    income, square = tenths(districts["MedInc"]), geography.map_squares(districts)
    together, rest = float(prices.corr(around["price"])), beyond_income(districts)
    return Findings(
        rows=len(everything),
        missing=int(everything.isna().sum().sum()),
        duplicates=duplicates(everything),
        capped_rows=int(capped(everything[TARGET]).sum()),
        capped=float(capped(everything[TARGET]).mean()),
        explored_rows=len(districts),
        many_rooms=int((districts["AveRooms"] > MOST_ROOMS).sum()),
        many_people=int((districts["AveOccup"] > MOST_PEOPLE).sum()),
        highest_people=float(districts["AveOccup"].max()),
        same_place=float(districts.duplicated(geography.PLACE, keep=False).mean()),
        nearest_km=float(around["nearest_km"].median()),
        neighbour_correlation=together,
        by_income=explained_share(prices, income),
        by_place=explained_share(prices, square),
        by_both=explained_share(prices, square.astype(str) + " " + income.astype(str)),
        by_neighbours=together**2,
        moran=geography.morans_i(districts, prices),
        moran_rest=geography.morans_i(districts, rest),
        reach_km=geography.reach_km(reach(districts)["what income leaves"]),
    )


def columns(districts: pd.DataFrame) -> pd.DataFrame:
    """One row a column: what it means, its range, and its missing and distinct values."""
    table = summarise(districts)
    table.insert(0, "meaning", [CONTRACT[name].meaning for name in table.index])
    return table


def styled(table: pd.DataFrame, *, precision: int) -> Any:
    """A table for a reader: so many decimals, and the minus of print."""
    return table.style.format(lambda value: _written(value, precision))


def _written(value: Any, precision: int) -> str:
    if isinstance(value, float):
        return f"{value:z,.{precision}f}".replace("-", "−")
    return f"{value:,}" if isinstance(value, Integral) else str(value)


def ceilings(districts: pd.DataFrame) -> pd.DataFrame:
    """The highest value of each column, and how many districts stand exactly there.

    A crowd at the highest value means that the counting stopped there.
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
    """The tenth of the districts, 0 to 9, that each value belongs to; equal values share one."""
    if values.nunique() < 2:  # of which pandas makes no group at all
        return values * 0
    return pd.Series(pd.qcut(values, 10, labels=False, duplicates="drop"), index=values.index)


def beyond_income(districts: pd.DataFrame) -> pd.Series:
    """What is left of each price without the mean price of its tenth of income."""
    prices = districts[TARGET]
    return prices - prices.groupby(tenths(districts["MedInc"])).transform("mean")


def reach(districts: pd.DataFrame) -> pd.DataFrame:
    """The variogram of the prices, and of what income leaves of them."""
    values = {"price": districts[TARGET], "what income leaves": beyond_income(districts)}
    return geography.variogram(districts, pd.DataFrame(values))


def households(districts: pd.DataFrame) -> pd.Series:
    """The number of households of each district, over which its averages were taken.

    It is unknown where nobody lives in a household.
    """
    return (districts["Population"] / districts["AveOccup"].replace(0, np.nan)).rename("households")


def by_households(districts: pd.DataFrame) -> pd.DataFrame:
    """How far averages spread in groups of districts, from the fewest households to the most.

    The spread is the distance of the 5 % and the 95 % quantile. Averages over
    few households spread for that reason alone.
    """
    counts = households(districts)
    groups = districts.groupby(pd.qcut(counts, HOUSEHOLD_SHARES, duplicates="drop"), observed=True)
    columns = ["AveRooms", "AveBedrms", "AveOccup"]
    spread = groups[columns].quantile(0.95) - groups[columns].quantile(0.05)
    sizes = groups.size().rename("districts")
    names = [f"{max(0, group.left):,.0f} to {group.right:,.0f}" for group in sizes.index]
    table = pd.concat([sizes, spread.add_prefix("spread of ")], axis=1)
    return table.set_axis(pd.Index(names, name="households"))


def oddest(districts: pd.DataFrame) -> pd.DataFrame:
    """The five districts with most occupants a household, what they hold, and where they are."""
    rows = districts.nlargest(5, "AveOccup")
    distances = geography.city_distances(rows)
    return pd.DataFrame(
        {
            "AveOccup": rows["AveOccup"],
            "people": rows["Population"],
            "households": households(rows).round(),
            "price ($)": rows[TARGET] * USD_PER_UNIT,
            "nearest large city": distances.idxmin(axis=1),
            "km away": distances.min(axis=1),
        }
    ).reset_index(drop=True)
