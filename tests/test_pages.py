"""The pages over a run and over all runs: what they say, and what they are silent about."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from housing_lib import geography, pages


def row(family: str, title: str, rmse: float) -> dict[str, Any]:
    errors = {f"{part}_rmse": rmse for part in ("val", "test")}
    others = {"val_mae": rmse / 2, "val_r2": 0.8, "test_mae": rmse / 2, "test_r2": 0.8}
    return {"family": family, "title": title, "linear": family == "ridge", **errors, **others}


def step(name: str, *, variant: str = "", state: str = "done", **told: Any) -> dict[str, Any]:
    page = f"{name}.html" if state == "done" else None
    known = {"reason": "", "key": "k", "seconds": 75.0, "report": page, "record": {}}
    return {"name": name, "variant": variant, "state": state, **known, **told}


PLACES = pd.DataFrame({"Latitude": [34.05] * 6 + [37.75], "Longitude": [-118.25] * 6 + [-122.45]})
BOARD = [row("xgboost", "XGBoost", 0.4), row("random_forest", "Random forest", 0.5)]
RIDGE = row("ridge", "Ridge", 0.7)
METRICS = {"test_rmse": 0.4, "test_mae": 0.26, "test_r2": 0.88, "val_rmse": 0.4}
CHAMPION = {
    "family": "xgboost",
    "title": "XGBoost",
    "version": 8,
    "decision": "promoted",
    "reason": "its test RMSE is below that of version 7",
    "metrics": METRICS,
    "gain_usd": 310.0,
    "runner_up": {"title": "Random forest", "val_rmse_gain_usd": 10_000.0},
    "leaderboard": [*BOARD, RIDGE],
}
MONITORED = {"model_version": 8, "mae": 0.27, "valid_rows": 4_000.0, "rows": 4_003.0}
MONITORED |= {"batches": 401, "fitted": 0, "promised_mae": 0.26}


def make_run(**changes: Any) -> dict[str, Any]:
    steps = [step("eda"), step("tuning", variant="xgboost"), step("evaluation")]
    run = {"id": "2026-11-23_11-42", "state": "done", "started": "2026-11-23T11:42:11"}
    run |= {"seconds": 4000.0, "commit": "9be8f61", "data_digest": "6c92", "steps": steps}
    run |= {"parameters": {"seed": 42, "source": "bundled"}, "versions": "python==3.11.7"}
    return run | {"champion": CHAMPION} | changes


def index(run: dict[str, Any], reports: Path) -> BeautifulSoup:
    return read(pages.write_index(run, reports / run["id"]))


def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(), "html.parser")


def words(page: BeautifulSoup) -> str:
    return " ".join(page.get_text(" ").replace(" .", ".").split())


def links(page: BeautifulSoup) -> list[str]:
    return [link["href"] for link in page.select("a")]


def write_run(reports: Path, **changes: Any) -> dict[str, Any]:
    run = make_run(**changes)
    pages.write_index(run, reports / run["id"])
    (reports / run["id"] / "run.json").write_text(json.dumps(run))
    return run


def test_the_index_gives_the_verdict_in_dollars_with_every_comparison(tmp_path):
    page = index(make_run(), tmp_path)
    assert words(page.h1) == "XGBoost prices a district with an average error of $26,000"
    figures = [figure.b.get_text() for figure in page.select(".figures li")]
    assert figures == ["$26,000", "$40,000", "$10,000", "$30,000", "$310"]
    assert "promoted to Production : its test RMSE is below" in words(page)
    assert {"eda.html", "tuning.html", "evaluation.html", "../index.html"} <= set(links(page))


def test_the_index_says_where_the_run_comes_from(tmp_path):
    footer = words(index(make_run(), tmp_path).footer)
    for origin in ("9be8f61", "6c92", "seed 42", "1 h 6 min", "2026-11-23 11:42"):
        assert origin in footer


def test_intervals_regions_and_coverage_are_shown_where_they_are_known(tmp_path):
    known = {"test_mae_low": 0.252, "test_mae_high": 0.269, "block_rmse": 0.6}
    metrics = METRICS | known | {"test_coverage": 0.897}
    board = [BOARD[0] | {"test_rmse_low": 0.38, "test_rmse_high": 0.42}, RIDGE]
    page = index(make_run(champion=CHAMPION | {"metrics": metrics}, leaderboard=board), tmp_path)
    assert words(page.h1).endswith("(95 % between $25,200 and $26,900)")
    assert "$38,000 to $42,000" in words(page.select_one(".board"))
    assert "RMSE is $60,000 instead of $40,000" in words(page.select_one(".limits"))
    assert "held the price of 89.7 % of them" in words(page)


def test_the_index_says_that_and_why_a_champion_was_held(tmp_path):
    held = CHAMPION | {"decision": "held", "reason": "it is <worse>.", "gain_usd": -110.0}
    page = index(make_run(champion=held), tmp_path)
    assert "not promoted : it is <worse>." in words(page)
    assert "$110 behind the model in Production" in words(page)


def test_gains_on_recent_districts_and_on_all_are_told_apart(tmp_path):
    retrained = {"gain_usd": -101.0, "recent_gain_usd": 5_414.0, "prices_moved": True}
    figures = index(make_run(champion=CHAMPION | retrained), tmp_path).select(".figures li")
    everywhere, recent = (words(figure) for figure in figures[-2:])
    before = "the model in Production before"
    assert everywhere == f"$101 behind {before} (RMSE on all test districts)"
    assert recent == f"$5,414 ahead of {before} (RMSE on recent districts, which decided)"


def test_the_index_tells_why_a_step_ran_where_it_needs_no_excuse(tmp_path):
    steps = [step("eda", why="its code changed"), step("tuning", why="x", reason="as in run 1")]
    rows = index(make_run(steps=steps), tmp_path).select(".steps tbody .reason")
    assert [words(row) for row in rows] == ["its code changed", "as in run 1"]


@pytest.mark.parametrize(
    ("size", "quick"),
    [
        ({"models": ["ridge"], "trials": 2, "growth": 0.2, "every_family": False}, True),
        ({"models": ["ridge"], "trials": 30, "growth": 1.0, "every_family": True}, False),
        ({}, False),
    ],
)
def test_the_index_says_that_a_run_was_a_quick_look(tmp_path, size, quick):
    run = make_run()
    told = words(index(run | {"parameters": run["parameters"] | size}, tmp_path))
    assert ("A quick look. 2 settings were tried of each family" in told) == quick
    assert ("quick look" in told) == quick


def test_a_single_notebook_that_is_given_a_growth_is_no_quick_look(tmp_path):
    alone = make_run(champion=None) | {"parameters": {"growth": 0.5}}
    assert "quick look" not in words(index(alone, tmp_path))


def test_differences_are_those_of_the_figures_as_they_stand_there(tmp_path):
    board = [BOARD[0] | {"val_rmse": 0.392904}, RIDGE | {"val_rmse": 0.4017153}]
    metrics = METRICS | {"val_rmse": 0.392904}
    run = make_run(champion=CHAMPION | {"metrics": metrics}, leaderboard=board)
    told = words(index(run, tmp_path))
    assert "$39,290" in told
    assert "$40,172" in told
    assert "$882 ahead of the best linear model" in told


def test_the_share_that_is_explained_changes_by_what_is_shown(tmp_path):
    older = CHAMPION | {"metrics": METRICS | {"test_r2": 0.88351}}
    write_run(tmp_path, id="old", started="2026-11-21T08:00:00", champion=older)
    newer = CHAMPION | {"metrics": METRICS | {"test_r2": 0.88549}}
    told = words(index(make_run(champion=newer), tmp_path).select_one(".changes"))
    assert "88.4 % 88.5 % ▲ 0.1 points more, better" in told


def test_a_runner_up_that_is_the_best_linear_model_is_told_once(tmp_path):
    second = CHAMPION | {"runner_up": {"title": "Ridge", "val_rmse_gain_usd": 30_000.0}}
    page = index(make_run(champion=second), tmp_path)
    figures = [words(figure) for figure in page.select(".figures li")]
    assert [figure for figure in figures if "Ridge" in figure] == [
        "$30,000 ahead of the runner-up and best linear model, Ridge (validation RMSE)"
    ]


def test_the_foot_of_the_index_has_words_for_what_was_asked(tmp_path):
    asked = {"growth": 0.2, "every_family": False, "models": ["elastic_net"]}
    choice = {"force": True, "only": [], "start": ""}
    footer = words(index(make_run(parameters=asked, choice=choice), tmp_path).footer)
    assert "size of models 20 %, tried in regions left out the champion alone" in footer
    assert "families elastic net" in footer
    assert "choice all steps again" in footer
    plain = words(index(make_run(choice=choice | {"force": False}), tmp_path).footer)
    assert "choice" not in plain


def test_a_run_that_chose_no_model_promises_nothing_of_a_longer_search(tmp_path):
    size = {"models": ["ridge"], "trials": 2, "growth": 0.2, "every_family": False}
    failed = make_run(state="failed", champion=None, parameters=size)
    assert "longer search" not in words(index(failed, tmp_path))


def test_the_index_of_one_family_compares_it_with_nothing(tmp_path):
    alone = CHAMPION | {"runner_up": None, "gain_usd": None, "leaderboard": BOARD[:1]}
    page = index(make_run(champion=alone), tmp_path)
    assert len(page.select(".figures li")) == 2


def test_the_index_does_not_compare_a_linear_champion_with_itself(tmp_path):
    champion = CHAMPION | {"family": "ridge", "title": "Ridge", "leaderboard": [RIDGE]}
    assert "linear" not in words(index(make_run(champion=champion), tmp_path))


def test_the_index_of_a_failed_run_names_the_steps_that_did_not_finish(tmp_path):
    bad = step("tuning", variant="elastic_net", state="failed", reason="stopped:\nValueError: x")
    skipped = step("evaluation", state="skipped", reason="tuning failed")
    run = make_run(state="failed", champion=None, steps=[step("eda"), bad, skipped])
    page = index(run, tmp_path)
    banner = page.select_one("[role=alert]")
    assert page.title.get_text().startswith("FAILED · Run")
    assert page.h1.get_text() == "No model was chosen"
    assert banner.h2.get_text() == "2 of 3 steps did not finish"
    assert "tuning · elastic net : failed. stopped: ValueError: x" in words(banner)
    assert banner.find_previous("h2") is None


def test_the_index_of_a_run_of_one_step_claims_nothing_about_models(tmp_path):
    page = index(make_run(champion=None, steps=[step("eda")]), tmp_path)
    assert page.h1.get_text() == "Eda: finished"
    assert "promoted" not in words(page)
    assert "must not be used" not in words(page)


def test_the_index_says_what_changed_since_the_newest_older_run_that_chose_a_model(tmp_path):
    worse = CHAMPION | {"title": "Ridge", "metrics": METRICS | {"test_mae": 0.3, "test_r2": 0.9}}
    write_run(tmp_path, id="oldest", started="2026-11-20T08:00:00")
    write_run(tmp_path, id="old", started="2026-11-21T08:00:00", champion=worse, data_digest="aa")
    write_run(tmp_path, id="bad", started="2026-11-22T08:00:00", state="failed", champion=None)
    write_run(tmp_path, id="new", started="2026-11-24T08:00:00")
    page = index(make_run(), tmp_path)
    rows = [[words(cell) for cell in row.select("th, td")] for row in page.select(".changes tr")]
    assert rows[1:] == [
        ["average error (MAE)", "$30,000", "$26,000", "▼ $4,000 lower, better"],
        ["RMSE", "$40,000", "$40,000", "the same"],
        ["variance of prices explained", "90.0 %", "88.0 %", "▼ 2.0 points less, worse"],
        ["champion", "Ridge", "XGBoost", "changed"],
        ["data", "aa", "6c92", "changed"],
    ]
    assert "../old/index.html" in links(page)
    assert "tested on different districts" in words(page)


def test_the_leaderboard_says_what_stands_behind_a_name(tmp_path):
    told = words(index(make_run(), tmp_path).select_one(".made-of"))
    assert told.startswith("XGBoost is more than one model: it is fitted with 2 seeds")
    assert "Every other family is a single model." in told
    plain = words(index(make_run(leaderboard=[RIDGE]), tmp_path).select_one(".made-of"))
    assert plain.startswith("Ridge is a single model. Beside it")


def test_pages_name_files_and_not_the_folders_of_a_machine(tmp_path):
    write_run(tmp_path, id="old", started="2026-11-21T08:00:00")
    where = "/home/ann/housing/data/grown/districts.parquet"
    bad = step("tuning", state="failed", reason=f"{where}: it is locked")
    parameters = {"seed": 42, "source": where, "reason": f"{where} has new districts"}
    made = make_run(parameters=parameters, command=f"housing run --source {where}")
    page = index(made | {"steps": [step("eda"), bad]}, tmp_path)
    assert "source bundled districts.parquet changed" in words(page.select_one(".changes"))
    assert "districts.parquet: it is locked" in words(page.select_one("[role=alert]"))
    assert "/home/ann" not in str(page)


def test_the_first_run_is_compared_with_none(tmp_path):
    assert not index(make_run(), tmp_path).select(".changes")


def test_the_index_draws_where_houses_are_dear_and_where_production_is_wrong(tmp_path):
    prices = geography.map_record(PLACES, pd.Series([1.0] * 6 + [3.0]))
    errors = geography.map_record(PLACES, pd.Series([-0.5] * 6 + [0.1]))
    found = {"price_map": prices, "capped": 0.047}
    monitoring = step("monitoring", record=MONITORED | {"error_map": errors})
    page = index(make_run(steps=[step("eda", record=found), monitoring]), tmp_path)
    dear, wrong = page.select("svg.map")
    assert len(dear.select("rect")) == len(wrong.select("rect")) == 2
    assert "highest at 37.7° N, 122.5° W ($300,000)" not in dear["aria-label"]  # too few districts
    assert "lowest at 34.1° N, 118.3° W (−$50,000)" in wrong["aria-label"]
    assert "Of all districts, 4.7 % stand at the highest price" in words(page)
    assert "Errors of version 8." in words(page)


@pytest.mark.parametrize("price", [True, False])
def test_a_map_of_errors_of_another_version_says_whose_it_is_and_why(tmp_path, price):
    drawn = geography.map_record(PLACES, pd.Series([-0.5] * 6 + [0.1]))
    steps = [
        step("eda", record={"price_map": drawn} if price else {}),
        step("monitoring", record=MONITORED | {"error_map": drawn, "model_version": 7}),
    ]
    held = CHAMPION | {"decision": "held"}
    told = words(index(make_run(champion=held, steps=steps), tmp_path))
    assert "here the model in Production is wrong" in told
    assert "Errors of version 7. Not those of version 8, which this run chose" in told
    steps[1]["record"]["model_version"] = 8
    own = words(index(make_run(steps=steps), tmp_path))
    assert "here the model is wrong" in own
    assert "Not those" not in own


def test_the_index_tells_how_production_was_last_monitored(tmp_path):
    page = index(make_run(steps=[step("monitoring", record=MONITORED)]), tmp_path)
    told = "Version 8 was off by $27,000 on average over 4,000 districts with known prices, in 401"
    assert told in words(page)
    assert "in its test it was off by $26,000. 3 rows broke the contract" in words(page)
    assert "test themselves" not in words(page)


def test_the_index_says_when_nothing_but_the_test_itself_was_monitored(tmp_path):
    verdict = {"state": "quiet", "sentence": "nothing moved", "source": "test"}
    monitored = step("monitoring", record=MONITORED | {"verdict": verdict})
    told = words(index(make_run(steps=[monitored]), tmp_path))
    assert "Quiet: nothing moved." in told
    assert "the districts of its test themselves, so nothing can have moved" in told


def test_limits_name_the_census_only_where_the_prices_are_the_census(tmp_path):
    own = make_run(parameters={"source": "mine.csv"})
    assert "1990" in words(index(make_run(), tmp_path))
    assert "1990" not in words(index(own, tmp_path))
    dearest = "The dearest districts"
    assert dearest in words(index(make_run(), tmp_path))
    assert dearest not in words(index(own, tmp_path))
    at_no_cap = make_run(steps=[step("eda", record={"capped": 0.0})])
    assert dearest not in words(index(at_no_cap, tmp_path))
    grown = make_run(steps=[step("eda", record={"capped": 0.046})])  # by dearer ones, perhaps
    text = words(index(grown, tmp_path))
    assert "4.6 % stand at the highest price that the census recorded" in text


def test_the_overview_lists_runs_newest_first_and_names_the_damaged(tmp_path):
    write_run(tmp_path, id="a", started="2026-11-21T08:00:00")
    write_run(tmp_path, id="b", started="2026-11-22T08:00:00")
    write_run(tmp_path, id="c", started="2026-11-23T08:00:00", state="failed", champion=None)
    for name, content in {"torn": '{"id": ', "list": "[]", "short": "{}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    for _ in range(2):
        page = read(pages.write_overview(tmp_path))
        assert links(page)[1:] == ["c/index.html", "b/index.html", "a/index.html"]
    assert "3 runs could not be read" in words(page)
    assert "torn/run.json" in words(page)


def test_the_overview_says_of_each_run_what_it_was_and_what_it_came_to(tmp_path):
    alarm = step("monitoring", record={"verdict": {"state": "alarm"}})
    write_run(tmp_path, id="a", started="2026-11-21T08:00:00")
    write_run(tmp_path, id="b", started="2026-11-22T08:00:00", champion=None, steps=[alarm])
    write_run(tmp_path, id="c", started="2026-11-23T08:00:00", champion=None, steps=[step("eda")])
    rows = read(pages.write_overview(tmp_path)).select("tbody tr")
    told = [(words(row.select("td")[1]), words(row.select("td")[4])) for row in rows]
    assert told == [("eda", "–"), ("monitoring", "alarm"), ("XGBoost", "promoted")]


def test_the_overview_draws_the_average_error_over_time_once_there_are_two(tmp_path):
    write_run(tmp_path, id="a", started="2026-11-21T08:00:00")
    assert not read(pages.write_overview(tmp_path)).select("svg")
    better = CHAMPION | {"metrics": METRICS | {"test_mae": 0.25}}
    write_run(tmp_path, id="b", started="2026-11-22T08:00:00", champion=better)
    page = read(pages.write_overview(tmp_path))
    points = [point.get_text() for point in page.select("svg circle title")]
    assert points == ["a: $26,000", "b: $25,000"]
    assert "between $25,000 and $26,000" in page.svg["aria-label"]


def test_latest_leads_to_the_newest_run_that_finished(tmp_path):
    write_run(tmp_path, id="a", started="2026-11-21T08:00:00")
    pages.write_overview(tmp_path)
    assert (tmp_path / "latest").readlink() == Path("a")
    write_run(tmp_path, id="b", started="2026-11-22T08:00:00")
    write_run(tmp_path, id="c", started="2026-11-23T08:00:00", state="failed", champion=None)
    pages.write_overview(tmp_path)
    assert (tmp_path / "latest").readlink() == Path("b")


def test_pages_are_made_anew_from_the_records_of_a_run(tmp_path):
    write_run(tmp_path, id="a")
    (tmp_path / "a" / "index.html").unlink()
    assert pages.rewrite(tmp_path, "a") == tmp_path / "a"
    assert pages.rewrite(tmp_path, "latest") == tmp_path / "a"
    write_run(tmp_path, id="2026-01-01_101010")
    write_run(tmp_path, id="2026-01-02_101010")
    assert pages.rewrite(tmp_path, "2026-01-02") == tmp_path / "2026-01-02_101010"
    with pytest.raises(pages.PageError, match="2 runs that begin with '2026'"):
        pages.rewrite(tmp_path, "2026")
    assert "$26,000" in words(read(tmp_path / "a" / "index.html"))


def test_the_page_of_all_runs_is_made_anew_with_that_of_one(tmp_path):
    write_run(tmp_path, id="a")
    pages.rewrite(tmp_path, "a")
    assert links(read(tmp_path / "index.html"))[1:] == ["a/index.html"]


def test_a_run_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(pages.PageError, match=r"no run 'a'.*none yet"):
        pages.rewrite(tmp_path, "a")
    write_run(tmp_path, id="b")
    with pytest.raises(
        pages.PageError, match=r"expected latest, or one of b\. Nothing was written"
    ):
        pages.rewrite(tmp_path, "a")
    assert not (tmp_path / "index.html").exists()


def test_an_older_run_with_odd_records_does_not_spoil_a_new_page(tmp_path):
    odd = {"title": None, "metrics": METRICS, "version": None}
    write_run(
        tmp_path, id="odd", started="2026-11-01", champion=odd, versions="numpy", parameters=None
    )
    page = index(make_run(), tmp_path)
    assert "../odd/index.html" in links(page)


def test_an_overview_without_runs_says_how_to_make_one(tmp_path):
    assert "No run yet" in words(read(pages.write_overview(tmp_path / "reports")))
    assert not (tmp_path / "reports" / "latest").exists()


@pytest.mark.parametrize("state", ["done", "failed"])
def test_pages_ask_nothing_of_any_network(tmp_path, state):
    write_run(tmp_path, state=state)
    for page in (index(make_run(state=state), tmp_path), read(pages.write_overview(tmp_path))):
        assert not page.select("[src], link:not([href^='data:'])")
        assert page.meta.find_next(attrs={"http-equiv": "Content-Security-Policy"})
