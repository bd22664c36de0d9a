"""The contract of a district: its columns with units, ranges and meanings."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PRICE_CAP = 5.00001
COVERAGE = 0.9  # of the intervals that are told
LEVEL = 0.95  # of the intervals of figures: how sure a comparison is
FEWEST_HELD_OUT = 50  # to calibrate intervals on; fewer say nothing of the tails
FAR_KM = 10.0  # beyond this no known district is near
USD_PER_UNIT = 100_000


@dataclass(frozen=True)
class Column:
    """What one column holds: its unit, the range that is possible, and its meaning."""

    unit: str
    low: float
    high: float
    meaning: str

    @property
    def expected(self) -> str:
        """The range with its unit, as an error names it."""
        return f"{self.low:,.10g} to {self.high:,.10g} ({self.unit})"


CONTRACT = {
    "MedInc": Column("10,000 USD", 0, 20, "median income of the households"),
    "HouseAge": Column("years", 0, 150, "median age of the houses"),
    "AveRooms": Column("rooms", 0, 500, "rooms per household"),
    "AveBedrms": Column("bedrooms", 0, 200, "bedrooms per household"),
    "Population": Column("people", 1, 1_000_000, "people in the district"),
    "AveOccup": Column("people", 0, 5_000, "people per household"),
    "Latitude": Column("degrees", 32, 42.5, "latitude of the district's centre"),
    "Longitude": Column("degrees", -125, -114, "longitude of the district's centre"),
    "MedHouseVal": Column("100,000 USD", 0, 20, "median house value"),
}
TARGET = "MedHouseVal"
FEATURES = tuple(name for name in CONTRACT if name != TARGET)

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
