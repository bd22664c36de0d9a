"""The Production model as the server holds it: loaded once, warmed up, asked by the row."""

import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from housing_lib import registry
from housing_lib.data import FEATURES, Floats
from housing_lib.settings import HousingError

log = logging.getLogger("uvicorn.error")


class NoChampionError(HousingError):
    """No model stands ready to answer; the text says why."""


@dataclass(frozen=True)
class Champion:
    """A registered model and the moment since which it answers."""

    registered: registry.RegisteredModel
    loaded_at: datetime

    def price(self, district: Floats) -> float:
        """The price of one district, shape (1, 8) in the contract's order, in 100,000 USD."""
        price = float(self.registered.model.predict(district)[0])
        if not math.isfinite(price):
            raise ArithmeticError(f"version {self.registered.version} predicted {price}")
        return price


def load_champion() -> Champion:
    """The model that stands in Production, after a first prediction that warms it up.

    Raises
    ------
    NoChampionError
        If there is none, or it cannot be loaded or asked.
    """
    try:
        champion = Champion(registry.load("production"), datetime.now(UTC))
        champion.price(np.full((1, len(FEATURES)), np.nan))
    except HousingError as error:
        raise NoChampionError(str(error)) from error
    except Exception as error:
        log.exception("The Production model cannot be loaded")
        raise NoChampionError(
            f"the Production model cannot be loaded ({type(error).__name__}); "
            "the server's log says more. Nothing was changed."
        ) from error
    return champion
