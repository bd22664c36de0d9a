"""Notebooks are executed and kept, and every page stands alone."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbformat import v4

from housing_lib import execution, pages, reports

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
PARAMETERS = """\
n_trials: int = 5  # how many, as in "#5"
model_name: str = "a#b"  # which one
rate: float = 0.1
quick: bool = False
limit: int | None = None
"""
FIGURE = """\
import sys
from IPython.display import Image, display
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from housing_lib.reports import record
print("ON_" + "STDERR", file=sys.stderr)
figure, axes = plt.subplots(figsize=(2, 1))
display(figure, metadata={"image/png": {"alt": 'A "flat" line'}})
"""
RESULT = "record(rmse=np.float64(0.4), rows=np.int64(3), ok=np.bool_(True), trials=n_trials)"


def text(source: str) -> Any:
    return v4.new_markdown_cell(source)


def code(source: str, *tags: str) -> Any:
    return v4.new_code_cell(source, metadata={"tags": list(tags)})


def write_notebook(path: Path, *cells: Any) -> Path:
    nbformat.write(v4.new_notebook(cells=list(cells), metadata={"kernelspec": KERNEL}), path)
    return path


class Page(HTMLParser):
    """What a page would load, where it links to, and the text it shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.images += [found] if tag == "img" else []
        addresses = [
            found[name] or "" for name in ("src", "href", "srcset", "data") if name in found
        ]
        (self.links if tag == "a" else self.loads).extend(addresses)

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def is_alone(self) -> bool:
        inside = all(address.startswith("data:") for address in self.loads)
        return inside and "@import" not in self.source and "url(" not in self.source


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A small notebook, executed once with `MPLBACKEND=Agg` around it, and its page."""
    folder = tmp_path_factory.mktemp("run {1}")
    notebook = write_notebook(
        folder / "02_small.ipynb",
        text("# What is `small`?\n\n> A test."),
        code(PARAMETERS, "parameters"),
        text("## The *data*"),
        code(FIGURE),
        code("plt.plot([1, 2]);"),
        code("pd.DataFrame({'price': [1.5]})"),
        text("## The end"),
        code("print('OUTPUT_' + 'HIDDEN')", "hide-output"),
        code("print('CELL_REMOVED')", "remove-cell"),
        code("", "empty"),
        code(RESULT),
    )
    ipynb, heard = folder / "out" / "02_small.ipynb", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        given = {"n_trials": 7}
        execution.execute(notebook, given, ipynb, on_cell=lambda *place: heard.append(place))
    html = ipynb.with_suffix(".html")
    reports.render(ipynb, html, provenance={"commit": "<abc>", "took": "3 s"})
    return ipynb, heard, Page(html)


def test_recorded_values_come_back_as_plain_numbers(executed):
    assert reports.read_record(executed[0]) == {"rmse": 0.4, "rows": 3, "ok": True, "trials": 7}


def test_each_code_cell_that_starts_is_told_with_the_heading_above_it(executed):
    heard = executed[1]
    assert [place[:2] for place in heard] == [(k, 8) for k in range(1, 9)]
    assert heard[0][2] == "What is small?"
    assert heard[2][2] == "The data"
    assert heard[-1][2] == "The end"


def test_an_executed_notebook_names_no_path_and_leaves_nothing_beside_it(executed):
    metadata = json.loads(executed[0].read_text())["metadata"]["papermill"]
    assert metadata["input_path"] == metadata["output_path"] == "02_small.ipynb"
    folder = executed[0].parent
    assert {path.name for path in folder.iterdir()} == {"02_small.html", "02_small.ipynb"}
    assert {path.name for path in folder.parent.iterdir()} == {"02_small.ipynb", "out"}


def test_a_page_of_a_notebook_loads_nothing_from_anywhere(executed):
    assert executed[2].is_alone
    assert "default-src 'none'" in executed[2].source


def test_figures_survive_another_back_end_and_keep_their_alt_text(executed):
    images = executed[2].images
    assert len(images) >= 2
    assert images[0]["alt"] == 'A "flat" line'


def test_a_page_shows_what_readers_need_and_nothing_only_machines_read(executed):
    page = executed[2]
    assert page.source.count("<table") == 1
    for hidden in ("OUTPUT_HIDDEN", "ON_STDERR", "CELL_REMOVED", "rmse: 0.4", "# Parameters"):
        assert hidden not in page.text


def test_a_page_has_contents_anchors_a_way_home_a_toggle_and_provenance(executed):
    page = executed[2]
    assert {"#The-data", "#The-end", "index.html"} <= set(page.links)
    assert {"The-data", "The-end", "show-code"} <= set(page.ids)
    assert "What is small? · Housing" in page.text
    assert "<abc>" in page.text


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A notebook that fails in its second cell, with its error and its page."""
    folder = tmp_path_factory.mktemp("failed")
    notebook = write_notebook(
        folder / "03_bad.ipynb",
        text("## Division"),
        code("import sys, tqdm.auto; print('ON_' + 'STDERR', file=sys.stderr)"),
        code("1 / 0"),
        code("print('NEVER')"),
    )
    ipynb, html = folder / "out" / "03_bad.ipynb", folder / "out" / "03_bad.html"
    with pytest.raises(execution.StepFailedError) as error:
        execution.execute(notebook, {}, ipynb)
    reports.render(ipynb, html, provenance={}, failed=str(error.value))
    return str(error.value), ipynb, Page(html)


def test_a_failure_names_the_cell_and_its_error_and_keeps_the_notebook(failed):
    message, ipynb, _ = failed
    assert message == (
        "03_bad.ipynb stopped in code cell 2 of 3, under 'Division':\n"
        "ZeroDivisionError: division by zero\n"
        "What it did until then is kept in 03_bad.ipynb."
    )
    assert "ZeroDivisionError" in ipynb.read_text()


def test_a_failed_page_says_so_in_its_title_and_at_its_head_and_shows_stderr(failed):
    page = failed[2]
    assert "<title>FAILED · " in page.source
    assert page.source.index('role="alert"') < page.source.index("<main>")
    assert "ON_STDERR" in page.text
    assert "IProgress" not in page.text
    assert "#error" in page.links
    assert "error" in page.ids
    assert page.is_alone


def test_a_notebook_that_recorded_nothing_says_what_to_do(failed):
    with pytest.raises(reports.ReportError, match=r"recorded nothing.*record\("):
        reports.read_record(failed[1])


@pytest.mark.parametrize("value", [float("nan"), object(), {1: np.float64("inf")}])
def test_a_value_without_a_place_in_json_is_not_recorded(value):
    with pytest.raises(reports.ReportError, match="Nothing was recorded"):
        reports.record(value=value)


def row(family: str, title: str, rmse: float) -> dict[str, Any]:
    errors = {f"{part}_rmse": rmse for part in ("val", "test")}
    others = {"val_mae": rmse / 2, "val_r2": 0.8, "test_mae": rmse / 2, "test_r2": 0.8}
    return {"family": family, "title": title, "linear": family == "ridge", **errors, **others}


def step(name: str, *, variant: str = "", state: str = "done", reason: str = "") -> dict[str, Any]:
    page = f"{name}.html" if state == "done" else None
    told = {"reason": reason, "key": "k", "seconds": 75.0, "report": page, "record": {}}
    return {"name": name, "variant": variant, "state": state, **told}


BOARD = [row("xgboost", "XGBoost", 0.4), row("random_forest", "Random forest", 0.5)]
RIDGE = row("ridge", "Ridge", 0.7)
CHAMPION = {
    "family": "xgboost",
    "title": "XGBoost",
    "version": 8,
    "decision": "promoted",
    "reason": "its test RMSE is below that of version 7",
    "metrics": {"test_rmse": 0.4, "test_mae": 0.26, "test_r2": 0.88, "val_rmse": 0.4},
    "gain_usd": 310.0,
    "runner_up": {"title": "Random forest", "val_rmse_gain_usd": 10_000.0},
    "leaderboard": [*BOARD, RIDGE],
}


def make_run(**changes: Any) -> dict[str, Any]:
    steps = [step("eda"), step("tuning", variant="xgboost"), step("evaluation")]
    run = {"id": "2026-11-23_11-42", "state": "done", "started": "2026-11-23T11:42:11"}
    run |= {"seconds": 4000.0, "commit": "9be8f61", "data_digest": "6c92", "steps": steps}
    return run | {"parameters": {"seed": 42}, "champion": CHAMPION} | changes


def index(run: dict[str, Any], folder: Path) -> Page:
    return Page(pages.write_index(run, folder))


def test_the_index_gives_the_verdict_in_dollars_with_every_comparison(tmp_path):
    page = index(make_run(), tmp_path)
    for figure in ("$40,000", "$26,000", "$10,000", "$30,000", "$310", "88 %"):
        assert figure in page.text
    assert "promoted to Production: its test RMSE is below" in page.text
    assert {"eda.html", "tuning.html", "evaluation.html", "../index.html"} <= set(page.links)
    for origin in ("9be8f61", "6c92", "seed 42", "1 h 6 min", "2026-11-23 11:42"):
        assert origin in page.text
    assert page.is_alone


def test_the_index_says_that_and_why_a_champion_was_held(tmp_path):
    held = CHAMPION | {"decision": "held", "reason": "it is <worse>.", "gain_usd": -110.0}
    page = index(make_run(champion=held), tmp_path)
    assert "not promoted: it is <worse>.\n" in page.text
    assert "$110 behind the model in Production" in page.text


def test_the_index_of_one_family_compares_it_with_nothing(tmp_path):
    alone = CHAMPION | {"runner_up": None, "gain_usd": None, "leaderboard": BOARD[:1]}
    page = index(make_run(champion=alone), tmp_path)
    assert "runner-up" not in page.text
    assert "linear" not in page.text
    assert "$40,000" in page.text


def test_the_index_does_not_compare_a_linear_champion_with_itself(tmp_path):
    champion = CHAMPION | {"family": "ridge", "title": "Ridge", "leaderboard": [RIDGE]}
    assert "linear" not in index(make_run(champion=champion), tmp_path).text


def test_the_index_of_a_failed_run_names_the_steps_that_did_not_finish(tmp_path):
    bad = step("tuning", variant="elastic_net", state="failed", reason="stopped:\nValueError: x")
    skipped = step("evaluation", state="skipped", reason="tuning failed")
    run = make_run(state="failed", champion=None, steps=[step("eda"), bad, skipped])
    page = index(run, tmp_path)
    assert "<title>FAILED · Run" in page.source
    assert "No model was chosen" in page.text
    assert "2 of 3 steps did not finish" in page.text
    assert "tuning · elastic net: failed. stopped: ValueError: x" in page.text
    assert page.source.index("did not finish") < page.source.index("<h2>Pages")


def test_the_index_of_a_run_of_one_step_claims_nothing_about_models(tmp_path):
    page = index(make_run(champion=None, steps=[step("eda")]), tmp_path)
    assert "Eda: finished" in page.text
    assert "promoted" not in page.text


def write_run(reports_folder: Path, **changes: Any) -> None:
    run = make_run(**changes)
    folder = reports_folder / run["id"]
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run))
    pages.write_index(run, folder)


def test_the_overview_lists_runs_newest_first_and_names_the_damaged(tmp_path):
    write_run(tmp_path, id="a", started="2026-11-21T08:00:00")
    write_run(tmp_path, id="b", started="2026-11-22T08:00:00")
    write_run(tmp_path, id="c", started="2026-11-23T08:00:00", state="failed", champion=None)
    for name, content in {"torn": '{"id": ', "list": "[]", "short": "{}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    for _ in range(2):
        page = Page(pages.write_overview(tmp_path))
        runs = [link for link in page.links if link != "index.html"]
        assert runs == ["c/index.html", "b/index.html", "a/index.html"]
    assert "3 runs could not be read" in page.text
    assert "torn/run.json" in page.text
    assert "$40,000" in page.text
    assert page.is_alone


def test_latest_leads_to_the_newest_run_that_finished(tmp_path):
    write_run(tmp_path, id="a", started="2026-11-21T08:00:00")
    pages.write_overview(tmp_path)
    assert (tmp_path / "latest").readlink() == Path("a")
    write_run(tmp_path, id="b", started="2026-11-22T08:00:00")
    write_run(tmp_path, id="c", started="2026-11-23T08:00:00", state="failed", champion=None)
    pages.write_overview(tmp_path)
    assert (tmp_path / "latest").readlink() == Path("b")


def test_an_overview_without_runs_says_how_to_make_one(tmp_path):
    assert "No run yet" in Page(pages.write_overview(tmp_path / "reports")).text
    assert not (tmp_path / "reports" / "latest").exists()
