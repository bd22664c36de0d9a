"""Where things are and what they are called, read once from `HOUSING_*` variables and `.env`."""

import os
import re
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from housing_lib.errors import HousingError

PROJECT = Path(__file__).resolve().parents[1]
PLACES = ("root", "tracking_uri", "prediction_log")
PREFIX = "HOUSING_"
OF_COMMANDS = ("key",)  # read by `housing simulate` alone


class Settings(BaseSettings):
    """Paths, names and defaults of one installation.

    What is read (notebooks, bundled data) lies in the project; what is written
    lies under `root`, so that a test or a second team can have a root of its own.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=PROJECT / ".env", extra="ignore", frozen=True
    )

    root: Path = PROJECT
    seed: int = Field(default=42, ge=0)
    model_name: str = "california-housing"
    tracking_uri: str = Field(
        default="",
        repr=False,
        validation_alias=AliasChoices("HOUSING_TRACKING_URI", "MLFLOW_TRACKING_URI"),
    )
    study_url: str = Field(default="", repr=False)
    cluster: str = ""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    gate_margin_usd: float = Field(default=200, ge=0)
    gate_rmse_usd: float = Field(default=75_000, gt=0)
    gate_coverage: float = Field(default=0.88, gt=0, lt=1)
    gate_interval_required: bool = False
    gate_latency_ms: float = Field(default=100, gt=0)
    gate_size_mb: float = Field(default=200, gt=0)
    gate_memory_mb: float = Field(default=1_000, gt=0)
    gate_past_loss: float = Field(default=0.25, ge=0)
    hosts: str = ""
    api_keys: str = Field(default="", repr=False)
    without_keys: bool = False
    poll_seconds: float = Field(default=2.0, ge=0.1, le=3600)
    concurrency: int = Field(default=256, ge=1)
    prediction_log: str = Field(default="", repr=False)
    strict_log: bool = False

    notify_url: str = Field(default="", repr=False)
    notify_command: str = Field(default="", repr=False)

    retrain_source: str = "bundled"
    retrain_budget: str = "standard"
    retrain_models: str = ""
    retrain_window_days: float = Field(default=7, ge=0)
    recent_days: float = Field(default=90, gt=0)

    @property
    def notebooks(self) -> Path:
        """The folder of the notebooks."""
        return PROJECT / "notebooks"

    @property
    def raw_csv(self) -> Path:
        """The bundled data set, which is never edited."""
        return PROJECT / "data" / "raw" / "california_housing.csv"

    @property
    def processed(self) -> Path:
        """The folder of the split and preprocessed districts."""
        return self.root.resolve() / "data" / "processed"

    @property
    def studies(self) -> Path:
        """The folder that keeps the trials of every search."""
        return self.root.resolve() / "data" / "studies"

    @property
    def predictions(self) -> Path:
        """The folder that batch predictions go to."""
        return self.root.resolve() / "data" / "predictions"

    @property
    def grown(self) -> Path:
        """The folder of the labelled districts that joined the training data since."""
        return self.root.resolve() / "data" / "grown"

    @property
    def serving(self) -> Path:
        """The folder of the server's own copy of the champion and of its prediction log."""
        return self.root.resolve() / "data" / "serving"

    @property
    def prediction_log_uri(self) -> str:
        """The database of served predictions: the one named, or SQLite under `root`."""
        return database_url(self.prediction_log or f"sqlite:///{self.serving / 'predictions.db'}")

    @property
    def reports(self) -> Path:
        """The folder of the runs and their pages."""
        return self.root.resolve() / "reports"

    @property
    def alerts(self) -> Path:
        """The file of all alarms and of what was done about them."""
        return self.reports / "alerts.json"

    @property
    def artifacts(self) -> Path:
        """The folder of MLflow's artifacts when the store is local."""
        return self.root.resolve() / "mlartifacts"

    @property
    def store_uri(self) -> str:
        """The address of the MLflow store: the one named, or SQLite under `root`."""
        return self.tracking_uri or f"sqlite:///{self.root.resolve() / 'mlflow.db'}"

    @property
    def store_is_server(self) -> bool:
        """Whether the MLflow store is a server, rather than a database."""
        return self.store_uri.startswith(("http", "databricks"))


def no_settings() -> dict[str, str]:
    """The names that begin as settings do and are none, each with the nearest one, or nothing."""
    known = [name.upper() for name in (*Settings.model_fields, *OF_COMMANDS)]
    names = {name.upper() for name in (*os.environ, *_names_in_file())}
    ours = {name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)}
    near = {name: get_close_matches(name, known, n=1) for name in sorted(ours - {*known})}
    return {PREFIX + name: "".join(PREFIX + one for one in found) for name, found in near.items()}


def _names_in_file() -> list[str]:
    with suppress(OSError, ValueError):  # the settings themselves say what is wrong with it
        return list(dotenv_values(Settings.model_config["env_file"]))  # type: ignore[arg-type]
    return []


def database_url(url: str) -> str:
    """A database's address with the PostgreSQL driver that we install."""
    return re.sub("^postgres(ql)?://", "postgresql+psycopg://", url)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process.

    Raises
    ------
    HousingError
        If a variable holds what it cannot; all of them are named.
    """
    try:
        return _settled(Settings())
    except ValidationError as error:
        wrong = [
            f"  HOUSING_{str(one['loc'][0]).upper()}: found {one['input']!r}; {one['msg']}"
            for one in error.errors()
        ]
        lines = ["settings that cannot be used:", *wrong, "README.md lists them. Nothing was run."]
        raise HousingError("\n".join(lines)) from None


def _settled(found: Settings) -> Settings:
    """The same settings, with places that mean the same from any folder.

    Processes that are started from here may work in another one, as notebooks do.
    """
    given = {name: getattr(found, name) for name in PLACES}
    settled = {name: _absolute(value) for name, value in given.items()}
    for name in PLACES:
        if settled[name] != given[name]:
            os.environ[f"HOUSING_{name.upper()}"] = str(settled[name])
    return found.model_copy(update=settled)


def _absolute(place: Path | str) -> Path | str:
    """A folder, or the address of a file of SQLite, that begins at the root of all folders."""
    if isinstance(place, Path):
        return place.expanduser().absolute()
    name = place.removeprefix("sqlite:///")
    is_relative = name != place and name and not name.startswith(("/", ":", "file:"))
    return f"sqlite:///{Path(name).expanduser().absolute()}" if is_relative else place


def use_cluster(address: str) -> None:
    """Let `--cluster` name the cluster of this process and of those that it starts."""
    if address:
        os.environ["HOUSING_CLUSTER"] = address
        get_settings.cache_clear()
