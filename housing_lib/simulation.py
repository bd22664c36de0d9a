"""Districts that ask a running server for their prices, week by week, in a world that may change.

The world is the model's own, as it was when it was tested: a simulated district
is a test district with slightly other figures, and it is worth what the model
in Production says, plus the error that this made on a test district of about
the same price, as much larger or smaller as its interval is wider or narrower.
So without a change there is nothing to be found, whatever the model; and no
locked price is told to anybody, for none is used as it is.
"""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from http import HTTPStatus
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from housing_lib.data import CONTRACT, FEATURES, PRICE_CAP, Floats
from housing_lib.errors import HousingError, OutageError
from housing_lib.places import regions

TIMEOUT_S = 30
START_S = 60
ROWS_A_REQUEST = 500
JITTER = 0.02  # of each figure, in logarithms
JITTER_DEGREES = 0.01  # about a kilometre
ALIKE = 20  # test districts on either side whose errors a price may get
NARROWEST = 0.01  # 100,000 USD; no interval is narrower
RAISE = 1.2
SILENT = 0.3  # of the rows that a broken sensor sends
INFLATION = 1.01  # a week
SWAPPED = ("San Francisco Bay", "Central Valley")


class ScriptError(HousingError):
    """A simulation that is not begun: a shift that there is not, a server that is not ours."""


class SimulationError(OutageError):
    """A server that does not take part."""


@dataclass(frozen=True)
class World:
    """Test districts, what the model answers for them, and their true prices (100,000 USD).

    `half_widths` are those of the model's intervals: of a price above zero, from it to the upper
    end. A model that gives none is as sure of every price.
    """

    districts: pd.DataFrame
    predicted: Floats
    prices: Floats
    half_widths: Floats
    answer: Callable[[pd.DataFrame], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Week:
    """What is asked in a week, what it is truly worth, and how many weeks ago things changed."""

    number: int
    asked: pd.DataFrame
    prices: Floats
    changed: int = 0


@dataclass(frozen=True)
class Script:
    """How a simulation goes: a shift of `SHIFTS` from the week `start` on, prices `delay` late."""

    shift: str
    weeks: int = 8
    rows: int = 250
    start: int = 3
    delay: int = 1
    pace_s: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Sent:
    """How far a simulation is: the week, the districts that asked, and the prices that are told."""

    week: int = 0
    asked: int = 0
    told: int = 0


def world_of(model: Any, districts: pd.DataFrame, prices: Floats) -> World:
    """The world of a model, as it was when it was tested on some districts."""

    def answer(asked: pd.DataFrame) -> tuple[Floats, Floats]:
        if not hasattr(model, "predict_both"):
            return model.predict(asked), np.ones(len(asked))
        predicted, _, high = model.predict_both(asked)
        return predicted, np.maximum(high - predicted, NARROWEST)

    predicted, half_widths = answer(districts)
    return World(districts, predicted, prices, half_widths, answer)


def _incomes(week: Week, rng: np.random.Generator) -> Week:
    return _with(week, MedInc=week.asked["MedInc"] * RAISE)


def _swap(week: Week, rng: np.random.Generator) -> Week:
    asked = week.asked.copy()
    place = ["Latitude", "Longitude"]
    found = regions(*asked[place].to_numpy().T)
    one, other = (np.flatnonzero(found == name) for name in SWAPPED)
    if len(one) and len(other):
        taken = asked[place].to_numpy(copy=True)
        asked.loc[one, place] = taken[rng.choice(other, len(one))]
        asked.loc[other, place] = taken[rng.choice(one, len(other))]
    return replace(week, asked=asked)


def _nulls(week: Week, rng: np.random.Generator) -> Week:
    silent = rng.random(len(week.asked)) < SILENT
    return _with(week, AveRooms=week.asked["AveRooms"].mask(silent))


def _inflation(week: Week, rng: np.random.Generator) -> Week:
    prices = np.minimum(week.prices * INFLATION**week.changed, _limit(week.prices))
    return replace(week, prices=prices)


def _with(week: Week, **columns: pd.Series) -> Week:
    return replace(week, asked=week.asked.assign(**columns))


SHIFTS: Mapping[str, Callable[[Week, np.random.Generator], Week]] = {
    "none": lambda week, rng: week,
    "incomes": _incomes,
    "regions": _swap,
    "nulls": _nulls,
    "inflation": _inflation,
}


def weeks_of(world: World, script: Script) -> Iterator[Week]:
    """The weeks of a script, the same for the same seed."""
    for number in range(1, script.weeks + 1):
        rng = np.random.default_rng([script.seed, number])
        asked = _new_districts(world, script.rows, rng)
        week = Week(number, asked, _prices(world, asked, rng), number - script.start + 1)
        yield _inside(SHIFTS[script.shift](week, rng) if week.changed > 0 else week)


def _new_districts(world: World, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    drawn = world.districts[list(FEATURES)].sample(rows, replace=True, random_state=rng)
    asked = drawn.reset_index(drop=True)
    for name in ("MedInc", "AveRooms", "AveBedrms", "Population", "AveOccup"):
        asked[name] *= np.exp(rng.normal(0, JITTER, rows))
    for name in ("Latitude", "Longitude"):
        asked[name] += rng.normal(0, JITTER_DEGREES, rows)
    return asked


def _prices(world: World, asked: pd.DataFrame, rng: np.random.Generator) -> Floats:
    answered, half_widths = world.answer(_clipped(asked))
    order = np.argsort(world.predicted)
    place = np.searchsorted(world.predicted[order], answered)
    near = place + rng.integers(-ALIKE, ALIKE + 1, len(asked))
    twin = order[np.clip(near, 0, len(order) - 1)]
    errors = (world.prices - world.predicted)[twin] / world.half_widths[twin]
    found: Floats = answered + half_widths * errors
    return np.clip(found, world.prices.min(), _limit(world.prices))


def _limit(prices: Floats | pd.Series) -> float:
    """The highest price that is recorded: the census's, unless a source knows higher ones."""
    return max(PRICE_CAP, float(np.max(prices)))


def _inside(week: Week) -> Week:
    return replace(week, asked=_clipped(week.asked))


def _clipped(asked: pd.DataFrame) -> pd.DataFrame:
    low = [CONTRACT[name].low for name in FEATURES]
    high = [CONTRACT[name].high for name in FEATURES]
    return asked.clip(low, high, axis="columns")


@dataclass(frozen=True)
class Client:
    """A running server, as a program asks it."""

    address: str
    key: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine."""
        try:
            host = urlsplit(self.address).hostname or ""
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            return False

    def ask(self, path: str, content: Any = None) -> Any:
        """What the server answers.

        Raises
        ------
        SimulationError
            If nobody answers, or with a refusal.
        """
        body = None if content is None else json.dumps(content).encode()
        headers = {"content-type": "application/json"} | (
            {"x-api-key": self.key} if self.key else {}
        )
        try:
            request = urllib.request.Request(self.address.rstrip("/") + path, body, headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return json.load(answer)
        except (OSError, ValueError, HTTPException) as error:
            raise SimulationError(
                f"the server at {self.address} did not answer {path}: {error}. Expected the one "
                "that `housing serve` starts; a 401 or 403 wants --key."
            ) from error

    def wait(self, patience_s: float) -> None:
        """Wait for a server that is starting.

        Raises
        ------
        SimulationError
            If it is not there, or without a model, for that long; or refuses at once.
        """
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self.ask("/model")
            except SimulationError as error:
                if time.monotonic() > deadline or not _may_start(error.__cause__):
                    raise
            else:
                return
            time.sleep(0.5)


def _may_start(cause: BaseException | None) -> bool:
    """Whether a server answered as one that is starting: not at all, or that it has no model."""
    if isinstance(cause, HTTPError):
        return cause.code == HTTPStatus.SERVICE_UNAVAILABLE
    return isinstance(getattr(cause, "reason", cause), ConnectionRefusedError)


def refuse(
    client: Client,
    script: Script,
    *,
    anywhere: bool,
    patience_s: float = START_S,
    on_wait: Callable[[str], None] = lambda said: None,
) -> None:
    """Refuse what cannot be played, before anything is sent.

    Parameters
    ----------
    on_wait
        Hears for whom it waits, and how long at most, before it does.

    Raises
    ------
    ScriptError
        If there is no such shift, or the server is not on this machine.
    SimulationError
        If it does not answer within so many seconds.
    """
    if script.shift not in SHIFTS:
        near = get_close_matches(script.shift, SHIFTS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ScriptError(
            f"there is no shift '{script.shift}'; expected {', '.join(SHIFTS)}.{hint} "
            "Nothing was sent."
        )
    if not (client.is_local or anywhere):
        raise ScriptError(
            f"{client.address} is not on this machine, and simulated districts would stay in its "
            "prediction log beside real ones. --anywhere sends them all the same. Nothing was sent."
        )
    on_wait(f"Waiting for the server at {client.address}, {patience_s:g} seconds at most.")
    client.wait(patience_s)


def play(client: Client, weeks: Iterator[Week], script: Script) -> Iterator[Sent]:
    """How far it is, after every request; the last weeks' prices are told at the end.

    The server notes when it answers, and nobody can tell it another time: a week is
    what is asked between two pauses of `pace_s`. The true prices carry simulated
    times, as if the last week ended now.

    Raises
    ------
    SimulationError
        If the server does not answer, or refuses.
    """
    waiting: list[tuple[Week, list[str]]] = []
    sent = Sent()
    for week in weeks:
        ids: list[str] = []
        for start in range(0, len(week.asked), ROWS_A_REQUEST):
            ids += _ask(client, week.asked[start : start + ROWS_A_REQUEST])
            sent = replace(sent, week=week.number, asked=sent.asked + len(ids) - start)
            yield sent
        waiting.append((week, ids))
        while waiting and waiting[0][0].number <= week.number - script.delay:
            sent = replace(sent, told=sent.told + _tell(client, script, *waiting.pop(0)))
            yield sent
        time.sleep(script.pace_s)
    for one in waiting:
        sent = replace(sent, told=sent.told + _tell(client, script, *one))
        yield sent


def _ask(client: Client, asked: pd.DataFrame) -> list[str]:
    rows = [
        {name: None if np.isnan(value) else value for name, value in row.items()}
        for row in asked.to_dict("records")
    ]
    answer = client.ask("/predict/batch", {"districts": rows})
    return [one["prediction_id"] for one in answer["predictions"]]


def _tell(client: Client, script: Script, week: Week, ids: list[str]) -> int:
    observed = datetime.now(UTC) - timedelta(weeks=script.weeks - week.number)
    told = [
        {
            "prediction_id": name,
            "median_house_value": float(price),
            "observed_at": observed.isoformat(),
        }
        for name, price in zip(ids, week.prices, strict=True)
    ]
    for start in range(0, len(told), ROWS_A_REQUEST):
        client.ask("/actuals", {"actuals": told[start : start + ROWS_A_REQUEST]})
    return len(told)
