"""Simulated districts are like the test districts until the script changes them."""

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from monitored import observe
from serving import running_server
from typer.testing import CliRunner

from housing_lib import cli, simulation, traffic
from housing_lib.data import FEATURES, PRICE_CAP, row_ids
from housing_lib.places import regions
from housing_lib.settings import get_settings
from housing_lib.simulation import Client, Script
from housing_lib.verdict import QUIET


@pytest.fixture(scope="module")
def world(store):
    """The store's test districts with its model's answers."""
    prices = store.test["MedHouseVal"].to_numpy()
    return simulation.world_of(store.registered.model, store.test, prices)


def weeks(world, shift, **more):
    return list(simulation.weeks_of(world, Script(shift, weeks=4, rows=400, start=3, **more)))


def errors(world, week):
    return world.answer(week.asked)[0] - week.prices


def test_without_a_shift_districts_and_errors_are_those_of_the_test(world):
    found = weeks(world, "none")
    asked = pd.concat([week.asked for week in found])
    now = np.concatenate([errors(world, week) for week in found])
    then = world.predicted - world.prices
    assert abs(now.mean() - then.mean()) < 4 * then.std() / np.sqrt(len(now))
    assert np.sqrt(np.mean(now**2)) == pytest.approx(np.sqrt(np.mean(then**2)), rel=0.15)
    for name in FEATURES:
        known = world.districts[name]
        assert abs(asked[name].median() - known.median()) < 0.2 * known.std(), name


def test_without_a_shift_intervals_hold_and_errors_are_as_large_as_they_say(world):
    found = weeks(world, "none")
    asked = pd.concat([week.asked for week in found])
    sizes = np.abs(np.concatenate([errors(world, week) for week in found]))
    tested = np.abs(world.predicted - world.prices)
    widths, bounds = world.answer(asked)[1], np.quantile(world.half_widths, [0.25, 0.75])
    held = (tested <= world.half_widths).mean()
    assert abs((sizes <= widths).mean() - held) < 3 * np.sqrt(held * (1 - held) / len(sizes))
    for side in (lambda half: half < bounds[0], lambda half: half > bounds[1]):
        then, now = tested[side(world.half_widths)], sizes[side(widths)]
        assert now.mean() == pytest.approx(then.mean(), rel=0.2)


def test_without_a_shift_monitoring_is_quiet(world, store):
    told = [week.asked.assign(MedHouseVal=week.prices) for week in weeks(world, "none")]
    found = observe(pd.concat(told, ignore_index=True), store.registered, batch_rows=400)
    assert found.verdict.state == QUIET


def test_a_model_without_intervals_is_as_sure_of_every_price(store):
    plain, prices = store.registered.model.model_, store.test["MedHouseVal"].to_numpy()
    assert (simulation.world_of(plain, store.test, prices).half_widths == 1).all()


def test_no_locked_district_and_no_locked_price_is_sent(world):
    found = weeks(world, "none")
    asked = pd.concat([week.asked for week in found])
    assert not np.isin(row_ids(asked), row_ids(world.districts)).any()
    below_cap = np.concatenate([week.prices for week in found])
    free = below_cap[(below_cap < PRICE_CAP) & (below_cap > world.prices.min())]
    assert not np.isin(free, world.prices).any()


def test_prices_above_the_census_are_as_high_as_a_source_knows_them(world):
    dearer = replace(world, predicted=world.predicted + 5, prices=world.prices + 5)
    highest = max(week.prices.max() for week in weeks(dearer, "inflation"))
    assert PRICE_CAP < highest <= dearer.prices.max()


def test_the_same_seed_is_the_same_traffic_and_another_is_not(world):
    one, same, other = (weeks(world, "incomes", seed=seed)[3].asked for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert not one.equals(other)


def test_a_shift_begins_in_its_week(world):
    before, after = weeks(world, "none"), weeks(world, "incomes")
    for number in (0, 1):
        pd.testing.assert_frame_equal(before[number].asked, after[number].asked)
    np.testing.assert_allclose(after[2].asked["MedInc"], 1.2 * before[2].asked["MedInc"])


def test_each_shift_changes_what_it_says(world):
    plain = weeks(world, "none")[3]
    silent, rise, swapped = (weeks(world, name)[3] for name in ("nulls", "inflation", "regions"))
    assert 0.2 < silent.asked["AveRooms"].isna().mean() < 0.4
    np.testing.assert_allclose(rise.prices, np.minimum(plain.prices * 1.01**2, PRICE_CAP))
    was, now = (
        regions(*one.asked[["Latitude", "Longitude"]].to_numpy().T) for one in (plain, swapped)
    )
    bay, valley = simulation.SWAPPED
    assert set(now[was == bay]) == {valley}
    assert set(now[was == valley]) == {bay}


def test_a_running_server_is_asked_and_told_late(world, store, tmp_path):
    log = f"sqlite:///{tmp_path / 'log.db'}"
    script = Script("inflation", weeks=3, rows=60, start=2, delay=1)
    with running_server(store.root, tmp_path / "server.log", HOUSING_PREDICTION_LOG=log) as server:
        client = Client(str(server.client.base_url))
        simulation.refuse(client, script, anywhere=False)
        played = list(simulation.play(client, simulation.weeks_of(world, script), script))
    assert [(one.asked, one.told) for one in played] == [
        (60, 0), (120, 0), (120, 60), (180, 60), (180, 120), (180, 180)
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_PREDICTION_LOG", log)
        get_settings.cache_clear()
        found = traffic.load("log").rows
    get_settings.cache_clear()
    wanted = np.concatenate([week.prices for week in simulation.weeks_of(world, script)])
    np.testing.assert_allclose(np.sort(found["MedHouseVal"]), np.sort(wanted))
    weeks_ago = (found["observed_at"].max() - found["observed_at"]) / pd.Timedelta(weeks=1)
    assert sorted(weeks_ago.round().value_counts().items()) == [(0, 60), (1, 60), (2, 60)]


def test_a_server_that_is_starting_is_waited_for():
    class Starting(BaseHTTPRequestHandler):
        codes = [503, 503, 200]  # noqa: RUF012

        def do_GET(self):
            self.send_response(self.codes.pop(0))
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *words):
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Starting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Client(f"http://127.0.0.1:{server.server_port}").wait(patience_s=30)
        server.shutdown()
    assert Starting.codes == []


def test_who_waits_for_a_server_says_so_at_once_and_for_how_long(monkeypatch):
    told = []
    monkeypatch.setattr(Client, "wait", lambda client, patience_s: told.append("waiting"))
    away = Client("http://127.0.0.1:9")
    simulation.refuse(away, Script("none"), anywhere=False, on_wait=told.append)
    assert told == [
        f"Waiting for the server at http://127.0.0.1:9, {simulation.START_S} seconds at most.",
        "waiting",
    ]


def test_simulate_tells_of_its_waiting_beside_the_output(own_root, monkeypatch):
    monkeypatch.setattr(Client, "wait", lambda client, patience_s: client.ask("/model"))
    done = CliRunner().invoke(cli.app, ["simulate", "http://127.0.0.1:9"])
    assert done.exit_code == 1
    assert "Waiting for the server at http://127.0.0.1:9, 60 seconds" in done.stderr
    assert done.stdout == ""


def test_a_server_that_is_away_another_machines_and_a_wrong_shift_are_refused(world):
    away, script = Client("http://127.0.0.1:9"), Script("none")
    with pytest.raises(simulation.SimulationError, match="did not answer /model"):
        simulation.refuse(away, script, anywhere=False, patience_s=0)
    with pytest.raises(simulation.ScriptError, match="not on this machine"):
        simulation.refuse(Client("http://example.org"), script, anywhere=False)
    with pytest.raises(simulation.ScriptError, match="not on this machine"):
        simulation.refuse(Client("http://["), script, anywhere=False)
    with pytest.raises(simulation.ScriptError, match="Did you mean 'inflation'"):
        simulation.refuse(away, Script("inflaton"), anywhere=False)
    with pytest.raises(simulation.SimulationError, match="/predict/batch"):
        list(islice(simulation.play(away, simulation.weeks_of(world, script), script), 1))
