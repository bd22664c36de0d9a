"""The pages over a run and over all runs, made from their records alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housing_lib import charts, makeup, privacy, runs, summary
from housing_lib.errors import HousingError
from housing_lib.files import atomic_path, read_json
from housing_lib.graph import FINISHED
from housing_lib.rendering import TEMPLATES

if TYPE_CHECKING:
    from jinja2 import Environment

TREND = {"width": 600.0, "height": 90.0}


class PageError(HousingError):
    """A run that is not there."""


@dataclass(frozen=True)
class Overview:
    """The runs of a reports folder, newest first, and the ones whose `run.json` is damaged."""

    runs: list[dict[str, Any]]
    damaged: dict[str, str]

    @property
    def chosen(self) -> list[dict[str, Any]]:
        """The runs that finished and chose a model, newest first."""
        return [run for run in self.runs if run["state"] == "done" and run["champion"]]


def write_index(run: Mapping[str, Any], folder: Path) -> Path:
    """The index page of a run: the verdict, what changed, the evidence, where it came from.

    `run` is what `run.json` holds; it is compared with the newest older run
    beside it that chose a model. Names that end in `_usd` are in dollars, all
    other prices in 100,000 USD.
    """
    before = _run_before(run, folder.parent)
    board = summary.leaderboard(run)
    return _write_page(
        "index.html.j2",
        folder / "index.html",
        run=run,
        champion=run.get("champion"),
        board=board,
        made_of=makeup.made_of(row["family"] for row in board),
        figures=summary.key_figures(run),
        before=before,
        changes=summary.changes(run, before) if before else [],
        prices=_drawn(charts.price_map, run, "eda", "price_map"),
        errors=_drawn(charts.error_map, run, "monitoring", "error_map"),
        explored=summary.record_of(run, "eda"),
        monitored=summary.record_of(run, "monitoring"),
        unfinished=[step for step in run["steps"] if step["state"] not in FINISHED],
        provenance=_provenance(run),
    )


def rewrite(reports: Path, name: str) -> Path:
    """The folder of a run, after its index page and the page of all runs were made anew.

    `name` is its id, the beginning of one, or `latest`.

    Raises
    ------
    PageError
        If there is no such run, or more than one.
    """
    known = [run["folder"] for run in _overview(reports).runs]
    whole = (reports / name).resolve().name
    found = [whole] if whole in known else [one for one in known if one.startswith(name)]
    if len(found) != 1:
        many = f"{len(found)} runs that begin with" if found else "no run"
        raise PageError(
            f"found {many} '{name}' that can be read in {reports}; expected latest, or one of "
            f"{', '.join(found or known) or 'none yet: `housing run` makes the first'}. "
            "Nothing was written."
        )
    folder = reports.resolve() / found[0]
    write_index(read_json(folder / "run.json"), folder)
    write_overview(reports)
    return folder


def write_overview(reports: Path) -> Path:
    """The page of all runs, newest first; `latest` then leads to the newest that chose a model."""
    overview = _overview(reports)
    chosen = overview.chosen
    _point_latest(reports / "latest", chosen[0]["folder"] if chosen else None)
    errors = [(run["id"], run["champion"]["metrics"]["test_mae"]) for run in reversed(chosen)]
    trend = charts.trend(errors, **TREND) if len(errors) > 1 else None
    return _write_page(
        "overview.html.j2", reports / "index.html", overview=overview, trend=trend, size=TREND
    )


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
    environment.filters |= {"dollars": summary.dollars, "duration": _duration}
    environment.filters |= {"subject": runs.subject, "outcome": runs.outcome}
    environment.filters |= {"without_folders": privacy.without_folders}
    return environment


def _drawn(chart: Any, run: Mapping[str, Any], step: str, name: str) -> charts.Map | None:
    recorded = summary.record_of(run, step).get(name)
    return chart(recorded) if recorded else None


def _run_before(run: Mapping[str, Any], reports: Path) -> dict[str, Any] | None:
    """The newest run that chose a model before this one."""
    started = str(run["started"])
    older = [one for one in _overview(reports).chosen if str(one["started"]) < started]
    return older[0] if older else None


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
    told["parameters"] = summary.spoken(run.get("parameters") or {})
    told["choice"] = _chosen(run.get("choice") or {})
    words = {key.replace("_", " "): summary.in_words(value) for key, value in told.items()}
    return {key: value for key, value in words.items() if value}


def _chosen(choice: Mapping[str, Any]) -> str:
    """Which steps were asked to run again; empty if none was."""
    said = {
        "all steps again": choice.get("force"),
        f"only {', '.join(choice.get('only') or [])}": choice.get("only"),
        f"from {choice.get('start')} on": choice.get("start"),
    }
    return ", ".join(words for words, holds in said.items() if holds)


def _overview(reports: Path) -> Overview:
    """The runs that can be read, and for the others the reason why not."""
    damaged: dict[str, str] = {}

    def note(path: Path, why: str) -> None:
        damaged[path.parent.name] = why

    found = runs.past_runs(note, reports=reports, check=_needed)
    return Overview([_with_page(one) for one in found], damaged)


def _needed(run: Mapping[str, Any]) -> list[Any]:
    """All that the pages need of a record, beside what every reader does."""
    metrics = run["champion"]["metrics"] if run["champion"] else {}
    names = ("test_mae", "test_rmse", "test_r2") if run["champion"] else ()
    return [*(run[key] for key in ("id", "seconds")), *(metrics[name] for name in names)]


def _with_page(run: runs.PastRun) -> dict[str, Any]:
    """A record with its folder, and its `page` if it already has one."""
    folder = run.folder.name
    page = f"{folder}/index.html" if (run.folder / "index.html").exists() else None
    return run.content | {"folder": folder, "page": page}


def _point_latest(latest: Path, folder: str | None) -> None:
    """Make the link `latest` lead to a folder beside it, or remove it."""
    if latest.exists() and not latest.is_symlink():
        return
    if folder is None:
        latest.unlink(missing_ok=True)
        return
    with atomic_path(latest) as temporary:
        temporary.symlink_to(folder)
