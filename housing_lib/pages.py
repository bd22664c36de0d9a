"""The pages over a run and over all runs, made from their records."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housing_lib.data import USD_PER_UNIT
from housing_lib.files import atomic_path, read_json
from housing_lib.rendering import TEMPLATES

if TYPE_CHECKING:
    from jinja2 import Environment

FINISHED = ("done", "reused")


@dataclass(frozen=True)
class KeyFigure:
    """One number that a page shows large: a price difference in 100,000 USD and what it means."""

    value: float
    meaning: str


@dataclass(frozen=True)
class Overview:
    """The runs of a reports folder, newest first, and the ones whose `run.json` is damaged."""

    runs: list[dict[str, Any]]
    damaged: dict[str, str]


def write_index(run: Mapping[str, Any], folder: Path) -> Path:
    """The index page of a run: the verdict, the leaderboard, every page, where it came from.

    `run` is what `run.json` holds. Names that end in `_usd` are in dollars, all
    other prices in 100,000 USD.
    """
    return _write_page(
        "index.html.j2",
        folder / "index.html",
        run=run,
        champion=run.get("champion"),
        board=_leaderboard(run),
        figures=_figures(run),
        unfinished=[step for step in run["steps"] if step["state"] not in FINISHED],
        provenance=_provenance(run),
    )


def write_overview(reports: Path) -> Path:
    """The page of all runs, newest first; `latest` then leads to the newest that chose a model."""
    overview = _overview(reports)
    finished = [run for run in overview.runs if run["state"] == "done" and run["champion"]]
    _point_latest(reports / "latest", finished[0]["folder"] if finished else None)
    return _write_page("overview.html.j2", reports / "index.html", overview=overview)


def _write_page(template: str, page: Path, **values: Any) -> Path:
    text = _environment().get_template(template).render(**values)
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, TEMPLATES / "housing"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"dollars": _dollars, "duration": _duration, "moment": _moment}
    return environment


def _leaderboard(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    champion = run.get("champion") or {}
    return list(run.get("leaderboard") or champion.get("leaderboard") or [])


def _figures(run: Mapping[str, Any]) -> list[KeyFigure]:
    """The numbers that decide: the champion's errors, and how far the others are behind."""
    champion = run.get("champion")
    if not champion:
        return []
    found = [
        KeyFigure(champion["metrics"]["test_mae"], "average error (MAE) on unseen districts"),
        KeyFigure(champion["metrics"]["test_rmse"], "RMSE on unseen districts"),
        _ahead_of_runner_up(champion),
        _ahead_of_linear(champion, _leaderboard(run)),
        _ahead_of_incumbent(champion),
    ]
    return [figure for figure in found if figure]


def _ahead_of_runner_up(champion: Mapping[str, Any]) -> KeyFigure | None:
    runner_up = champion.get("runner_up")
    if not runner_up:
        return None
    gain = _units(runner_up["val_rmse_gain_usd"])
    return _lead(gain, f"the runner-up, {runner_up['title']} (validation RMSE)")


def _ahead_of_linear(champion: Mapping[str, Any], board: list[dict[str, Any]]) -> KeyFigure | None:
    linear = [row for row in board if row["linear"]]
    if not linear or champion["family"] in {row["family"] for row in linear}:
        return None
    best = min(linear, key=lambda row: float(row["val_rmse"]))
    gain = best["val_rmse"] - champion["metrics"]["val_rmse"]
    return _lead(gain, f"the best linear model, {best['title']} (validation RMSE)")


def _ahead_of_incumbent(champion: Mapping[str, Any]) -> KeyFigure | None:
    gain = champion.get("gain_usd")
    if gain is None:
        return None
    return _lead(_units(gain), "the model in Production before (test RMSE)")


def _lead(gain: float, other: str) -> KeyFigure:
    return KeyFigure(abs(gain), f"{'behind' if gain < 0 else 'ahead of'} {other}")


def _units(dollars: float) -> float:
    return dollars / USD_PER_UNIT


def _dollars(value: float) -> str:
    """A price in 100,000 USD, written in dollars."""
    dollars = round(value * USD_PER_UNIT)
    return f"{'−' if dollars < 0 else ''}${abs(dollars):,}"


def _duration(seconds: float | None) -> str:
    """Seconds as a person says them; empty if none are known.

    Examples
    --------
    >>> _duration(4000)
    '1 h 6 min'
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


def _moment(iso: str) -> str:
    """A moment without its seconds and time zone."""
    return str(iso).replace("T", " ")[:16]


def _provenance(run: Mapping[str, Any]) -> dict[str, str]:
    """Where a run came from: all that `run.json` says of it besides its steps and results."""
    elsewhere = {"id", "state", "started", "seconds", "steps", "champion", "leaderboard"}
    times = {"started": _moment(run["started"]), "took": _duration(run["seconds"])}
    told = times | {key: value for key, value in run.items() if key not in elsewhere}
    return {key.replace("_", " "): _in_words(value) for key, value in told.items() if value}


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _overview(reports: Path) -> Overview:
    """The runs that can be read, and for the others the reason why not."""
    runs, damaged = [], {}
    for path in reports.glob("*/run.json"):
        if path.parent.is_symlink():
            continue
        try:
            runs.append(_summary(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            damaged[path.parent.name] = f"{type(error).__name__}: {error}"
    return Overview(sorted(runs, key=lambda run: str(run["started"]), reverse=True), damaged)


def _summary(path: Path) -> dict[str, Any]:
    """What the overview says of a run; with `page`, if it already has one."""
    run = read_json(path)
    champion = run["champion"] or {}
    rmse = champion["metrics"]["test_rmse"] if champion else None
    page = path.parent / "index.html"
    return {key: run[key] for key in ("id", "state", "started", "seconds")} | {
        "champion": champion.get("title"),
        "decision": champion.get("decision"),
        "rmse": rmse,
        "folder": path.parent.name,
        "page": f"{path.parent.name}/index.html" if page.exists() else None,
    }


def _point_latest(latest: Path, folder: str | None) -> None:
    """Make the link `latest` lead to a folder beside it, or remove it."""
    if latest.exists() and not latest.is_symlink():
        return
    if folder is None:
        latest.unlink(missing_ok=True)
        return
    with atomic_path(latest) as temporary:
        temporary.symlink_to(folder)
