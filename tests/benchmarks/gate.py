"""What the gate lets through: luck, true gains, collisions, kills; and how long it takes.

Models of the full kind are fitted on the bundled data, pairs of them differ in nothing but
their seed, and the gate is asked to promote one over the other. Collisions and kills go
through a real MLflow store. Run: python tests/benchmarks/gate.py --help
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
from bars import Bar, show

# A model of fewer trees would not do as the worse one: it stays near the mean, and is better there.
BEFORE = 0.2  # share of the training districts known to the worse of two models
PARAMS = {
    "n_estimators": 400,
    "learning_rate": 0.05,
    "max_depth": 7,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.3,
}


def main() -> None:
    """Build a store; print how the gate judges, then how ledger and stages hold, and the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40, help="pairs of equal configurations")
    parser.add_argument("--better", type=int, default=10, help="pairs with a truly better model")
    parser.add_argument("--kills", type=int, default=40, help="promotions and rollbacks killed")
    parser.add_argument("--races", type=int, default=50, help="times that two promoters meet")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        os.environ["HOUSING_ROOT"] = root
        rows = build(Path(root))
        judged = [*luck(rows, chosen.pairs), truth(rows, chosen.better)]
        held = [races(Path(root), chosen.races), kills(Path(root), chosen.kills)]
        show("The gate", [*judged, *held, *seconds()])


def build(root):
    """Training and test districts, after a store with three versions was made of them."""
    from housing_lib import (
        accuracy,
        data,
        families,
        features,
        parts,
        promotion,
        registry,
        tracking,
    )

    districts = data.acquire()
    split = features.preprocess(districts, data.split(districts))
    names = features.feature_names()
    made = {"source": "bundled", "test_share": 0.2, "validation_share": 0.16}
    manifest = parts.write_parts(split, feature_names=names, **made)
    train, test = split["train"], split["test"]
    model = families.make_model("xgboost", PARAMS | {"n_estimators": 50})
    model.fit(train.districts, train.y)
    with tracking.run("evaluation", "benchmark", params={}, tags={}) as run_id:
        uri = tracking.log_model(model, train.districts)
        predicted = model.predict(test.districts)
        tracking.log_metrics(accuracy.metrics(test.y, predicted, prefix="test_"))
    tags = {"family": "xgboost", "run_id": run_id, "data_digest": manifest.data_digest}
    for _ in range(3):
        registry.register(uri, tags=tags)
    assert promotion.promote(1).promoted
    tracking.client.cache_clear()
    return train, test


def predictions(rows, seeds, share=1.0):
    """The test prices of models of those seeds, fitted on the cluster if one is named."""
    from housing_lib import compute

    tasks = [(seed, share) for seed in seeds]
    found = dict(compute.each(predict, tasks, shared=rows, jobs=1))
    return [found[number] for number in range(len(tasks))]


def predict(rows, seed, share):
    """The test prices of a model of that seed that was fitted on a share of the districts."""
    from housing_lib.families import make_estimator

    train, test = rows
    known = np.random.default_rng(seed).random(len(train.y)) < share
    model = make_estimator("xgboost", PARAMS, seed=seed, n_jobs=os.cpu_count() or 1)
    return model.fit(train.X[known], train.y[known]).predict(test.X).astype("float64")


def promoted(rows, before, after):
    """Whether the gate promotes `after` over `before`."""
    from housing_lib import evidence, gate, guarded

    _, test = rows
    found = gate.Evidence(
        prices=test.y,
        predicted=after,
        squares=evidence.squares_of(test),
        slices=guarded.slices_of(test.districts, test.y),
        baselines={},
        recorded_rmse=rmse(test, after),
        latency_ms=1,
        size_mb=1,
        memory_mb=1,
        incumbent=gate.Incumbent(1, before),
    )
    return all(rule.passed for rule in gate.judge(found, gate.Limits(), seed=0))


def rmse(test, predicted):
    """The error of predictions on the test districts."""
    return float(np.sqrt(np.mean((predicted - test.y) ** 2)))


def luck(rows, pairs):
    """How many of equal pairs are promoted by the gate, and how many have the lower error."""
    found = predictions(rows, range(2 * pairs))
    errors = [rmse(rows[1], one) for one in found]
    gate = sum(promoted(rows, *pair) for pair in zip(found[::2], found[1::2], strict=True))
    lower = sum(after < before for before, after in zip(errors[::2], errors[1::2], strict=True))
    print(f"test RMSE over seeds: standard deviation {np.std(errors, ddof=1):.4f}")
    print(f"{pairs} equal pairs: {gate} promoted by the gate, {lower} by the lower error")
    told = f"equal models promoted, of {pairs} (lower error alone: {lower})"
    yield Bar(told, gate, "≤", pairs // 20)


def truth(rows, pairs):
    """How many of truly better models, which know five times the districts, are promoted."""
    before = predictions(rows, range(1_000, 1_000 + pairs), BEFORE)
    after = predictions(rows, range(2_000, 2_000 + pairs))
    both = list(zip(before, after, strict=True))
    gain = np.mean([rmse(rows[1], one) - rmse(rows[1], other) for one, other in both])
    found = sum(promoted(rows, *pair) for pair in both)
    return Bar(f"truly better by {gain:.4f}: promoted, of {pairs}", found, "≥", 0.9 * pairs)


def collide(root, kind, rounds):
    """What came of promoters that collide or are killed."""
    script = Path(__file__).parents[1] / "promoters.py"
    command = [sys.executable, "-W", "ignore", str(script), kind, str(rounds), "0"]
    environment = os.environ | {"HOUSING_ROOT": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def races(root, rounds):
    """In how many races exactly one promoter won, and the aliases and the ledger agreed."""
    told = collide(root, "race", rounds)
    good = sum(
        sorted(said["decision"] for said in one["said"]) == ["overtaken", "promoted"]
        and then["before"]["found"] == then["before"]["replayed"]
        for one, then in pairwise(told)
    )
    return Bar(f"one winner, of {rounds} races, half of them unlocked", good, "≥", rounds)


def kills(root, rounds):
    """After how many kills one version stood in Production and the ledger agreed with it."""
    states = [one["before"] for one in collide(root, "kill", rounds)]
    kinds: Counter[str] = Counter()
    good = 0
    for before, after in pairwise(states):
        moved = after["lines"] > before["lines"]
        changed = after["settled"]["production"] != before["settled"]["production"]
        stopped_within = moved and after["found"] != after["settled"]
        kinds["within" if stopped_within else "after" if moved else "before"] += 1
        good += after["settled"] == after["replayed"] and changed == moved and not after["damage"]
    where = ", ".join(f"{count} {kind} the move" for kind, count in sorted(kinds.items()))
    return Bar(f"consistent after a kill, of {rounds} ({where})", good, "≥", rounds)


def seconds():
    """How long the whole gate takes on the locked rows, and a rollback."""
    from housing_lib import promotion, registry

    promotion.promote(2)
    started = time.perf_counter()
    promotion.assess(3)
    gate_s = time.perf_counter() - started
    stands = registry.stage_version("production")
    started = time.perf_counter()
    assert registry.rollback().version != stands
    rollback_s = time.perf_counter() - started
    command = [Path(sys.executable).with_name("housing"), "rollback"]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    command_s = time.perf_counter() - started
    print(f"a rollback without Python's start: {rollback_s:.2f} s")
    yield Bar("the gate on the locked districts", gate_s, "≤", 20, "s")
    yield Bar("housing rollback, with Python's start", command_s, "≤", 2, "s")


if __name__ == "__main__":
    main()
