"""The gate tells a better model from a luckier one, and harm in a part from noise."""

from dataclasses import replace

import numpy as np
import pytest
import xgboost

from housing_lib import gains, gate, guarded, parts
from housing_lib.data import FEATURES, PRICE_CAP, capped
from housing_lib.gate import Evidence, Incumbent, Interval, Limits
from housing_lib.places import REGIONS

PAIRS = 40
BETTER = 10


@pytest.fixture(scope="module")
def rows(store):
    """Training and test districts of the session's store."""
    return parts.load_part("train"), parts.load_part("test")


@pytest.fixture(scope="module")
def fit(rows):
    """Predictions of a boosted model of that seed and that many trees, in a tenth of a second."""
    train, test = (part.districts[list(FEATURES)] for part in rows)
    matrix = xgboost.QuantileDMatrix(train, rows[0].y, max_bin=64)
    asked = xgboost.DMatrix(test)
    params = {"max_depth": 6, "eta": 0.15, "subsample": 0.9, "max_bin": 64, "nthread": 1}
    return lambda seed, trees: (
        xgboost.train({**params, "seed": seed}, matrix, trees).predict(asked).astype("float64")
    )


@pytest.fixture(scope="module")
def siblings(fit):
    """Predictions of models that differ in nothing but their seed."""
    return [fit(seed, trees=60) for seed in range(2 * PAIRS)]


@pytest.fixture
def evidence(rows, siblings):
    """A challenger that is 0.05 better everywhere than the incumbent."""
    _, test = rows
    predicted = siblings[0]
    return Evidence(
        prices=test.y,
        predicted=predicted,
        squares=np.arange(len(predicted)),
        slices=guarded.slices_of(test.districts, test.y),
        baselines={"the median price": np.full_like(test.y, np.median(test.y))},
        recorded_rmse=rmse(test.y, predicted),
        latency_ms=5,
        size_mb=5,
        memory_mb=50,
        incumbent=Incumbent(1, worse(test.y, predicted, 1.1)),
    )


def rmse(prices, predicted):
    return float(np.sqrt(np.mean((predicted - prices) ** 2)))


def worse(prices, predicted, factor, where=None):
    """Predictions whose errors are `factor` times as large, in some places or in all."""
    where = np.ones(len(prices), dtype=bool) if where is None else where
    return predicted + where * (factor - 1) * (predicted - prices)


def judge(evidence, limits=None):
    return gate.judge(evidence, limits or Limits(), seed=0)


def held(evidence, limits=None):
    """The names of the rules that hold."""
    return [rule.name for rule in judge(evidence, limits) if not rule.passed]


def test_a_better_model_passes_every_rule(evidence):
    assert held(evidence) == []


def test_of_forty_pairs_that_differ_only_in_their_seed_at_most_two_are_promoted(evidence, siblings):
    pairs = list(zip(siblings[::2], siblings[1::2], strict=True))
    assert len(pairs) == PAIRS
    prices = evidence.prices
    lower_wins = sum(rmse(prices, after) < rmse(prices, before) for before, after in pairs)
    promoted = sum(_promoted(evidence, before, after) for before, after in pairs)
    assert lower_wins >= PAIRS / 4
    assert promoted <= 2


def _promoted(evidence, before, after):
    recorded = rmse(evidence.prices, after)
    pair = replace(
        evidence, predicted=after, incumbent=Incumbent(1, before), recorded_rmse=recorded
    )
    return held(pair) == []


def test_a_truly_better_model_is_promoted_nine_times_of_ten(fit, evidence, siblings):
    better = [fit(seed, trees=160) for seed in range(BETTER)]
    pairs = list(zip(siblings[-BETTER:], better, strict=True))
    gains = [rmse(evidence.prices, a) - rmse(evidence.prices, b) for a, b in pairs]
    assert 0.015 < np.mean(gains) < 0.025
    assert sum(_promoted(evidence, *pair) for pair in pairs) >= 0.9 * BETTER


def test_a_tie_holds(evidence):
    tie = replace(evidence, incumbent=Incumbent(1, evidence.predicted))
    assert held(tie) == ["gain over version 1"]


@pytest.mark.parametrize("name", ["Los Angeles", "Sacramento", "capped districts"])
def test_a_model_that_is_better_overall_and_worse_in_a_guarded_slice_holds(evidence, name):
    prices, hurt = evidence.prices, evidence.slices[name]
    harmed = worse(prices, evidence.predicted, 1.3, hurt)
    before = worse(prices, evidence.predicted, 1.4, ~hurt)
    sly = replace(evidence, predicted=harmed, recorded_rmse=rmse(prices, harmed))
    sly = replace(sly, incumbent=Incumbent(1, before))
    assert rmse(prices, harmed) < rmse(prices, before)
    assert f"gain in {name}" in held(sly)


def test_the_interval_of_a_gain_is_that_of_scipys_paired_bootstrap(evidence):
    from scipy.stats import bootstrap

    prices, before, after = evidence.prices, evidence.incumbent.predicted, evidence.predicted
    everywhere = np.ones(len(prices), dtype=bool)
    rivals = {"all": gains.Rival("incumbent", before, everywhere)}
    (ours,) = gains.gains(prices, after, rivals, seed=0)
    theirs = bootstrap(
        ((before - prices) ** 2, (after - prices) ** 2),
        lambda a, b, axis: np.sqrt(a.mean(axis)) - np.sqrt(b.mean(axis)),
        paired=True,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=width / 10)
    assert ours.high == pytest.approx(theirs.high, abs=width / 10)
    assert ours.value == pytest.approx(rmse(prices, before) - rmse(prices, after))


def test_the_same_seed_gives_the_same_table(evidence):
    assert judge(evidence) == judge(evidence)


@pytest.mark.parametrize(
    ("change", "limits", "name"),
    [
        ({"recorded_rmse": None}, {}, "recorded test RMSE"),
        ({"recorded_rmse": 0.40}, {}, "recorded test RMSE"),
        ({}, {"margin_usd": 20_000}, "gain over version 1"),
        ({}, {"rmse_usd": 30_000}, "test RMSE"),
        ({}, {"interval_required": True}, "prediction interval"),
        ({"latency_ms": 101}, {}, "time of one prediction"),
        ({"latency_ms": float("nan")}, {}, "time of one prediction"),
        ({"size_mb": 201}, {}, "size of the file"),
        ({"memory_mb": 1001}, {}, "memory taken"),
        ({"prices": None}, {}, "gains"),
    ],
)
def test_each_rule_holds_by_itself(evidence, change, limits, name):
    assert name in held(replace(evidence, **change), replace(Limits(), **limits))


@pytest.mark.parametrize(("covered", "passes"), [(0.89, True), (0.85, False)])
def test_the_interval_must_cover_what_it_promises(evidence, covered, passes):
    inside = np.arange(len(evidence.prices)) < covered * len(evidence.prices)
    low = evidence.prices - np.where(inside, 1.0, -0.1)
    asked = replace(evidence, interval=Interval(low, low + 2, level=0.9))
    assert ("coverage of the 90 % interval" not in held(asked)) == passes


def test_a_baseline_that_is_not_beaten_holds(evidence):
    rival = replace(
        evidence, baselines={"a rival": worse(evidence.prices, evidence.predicted, 0.9)}
    )
    assert held(rival) == ["gain over a rival"]


def test_a_number_that_is_missing_holds_and_every_rule_is_still_asked(evidence):
    broken = evidence.predicted.copy()
    broken[7] = np.nan
    found = judge(replace(evidence, predicted=broken))
    assert found[0].figure.startswith("4,112 of")
    assert {"number of districts with a price", "gain over version 1", "test RMSE"} <= {
        rule.name for rule in found if not rule.passed
    }
    assert {"time of one prediction", "size of the file"} <= {
        rule.name for rule in found if rule.passed
    }


def test_an_exception_in_a_rule_holds_and_says_what_happened(evidence):
    class Broken(dict):
        def items(self):
            raise ZeroDivisionError("no such thing")

    rules = {rule.name: rule for rule in judge(replace(evidence, baselines=Broken()))}
    assert not rules["gains"].passed
    assert rules["gains"].figure == "cannot be asked: no such thing"


def test_the_first_version_needs_the_baselines_and_the_bars_alone(evidence):
    first = replace(evidence, incumbent=None)
    assert held(first) == []
    assert not [rule for rule in judge(first) if rule.name.startswith(("gain in", "gain over v"))]


def test_the_slices_are_regions_price_bands_and_capped_districts(evidence, rows):
    _, test = rows
    slices = evidence.slices
    regions = [slices[name] for name in REGIONS]
    assert np.sum(regions, axis=0).max() == np.sum(regions, axis=0).min() == 1
    bands = [mask for name, mask in slices.items() if "$" in name]
    assert len(bands) == 4
    np.testing.assert_array_equal(np.sum(bands, axis=0) + slices["capped districts"], 1)
    np.testing.assert_array_equal(slices["capped districts"], capped(test.y))
    assert min(band.sum() for band in bands) > 0.2 * len(test.y)


def test_a_district_without_a_place_is_in_no_region_and_small_slices_are_left_out(rows):
    _, test = rows
    districts = test.districts.head(300).copy()
    districts.loc[:9, "Latitude"] = np.nan
    slices = guarded.slices_of(districts, test.y[:300])
    assert not any(slices[name][:10].any() for name in REGIONS if name in slices)
    assert all(mask.sum() >= guarded.LEAST_ROWS for mask in slices.values())
    assert len(slices) < 13


def test_bands_of_tied_prices_are_one_and_leave_no_district_out():
    prices = np.repeat([1.0, 2.0, 3.0], [150, 50, 50])
    bands = guarded.price_slices(prices)
    assert bands.pop("capped districts").sum() == 0
    assert {name: mask.sum() for name, mask in bands.items()} == {
        "$100,000 to $200,000": 200,
        "$200,000 to $300,000": 50,
    }
    (alike,) = guarded.answer_slices(np.ones(60)).values()
    assert alike.all()


def test_where_every_price_is_capped_there_is_no_band_to_guard():
    (found,) = guarded.price_slices(np.full(60, PRICE_CAP)).values()
    assert found.all()
