"""The figures: they draw what they are given, name their axes, and warn of nothing."""

import base64
import warnings
from collections.abc import Callable, Iterator

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import format_display_data
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from housing_lib import data, exploration, geography, plots
from housing_lib.families import Range
from housing_lib.plots.style import RED, DollarTicks


@pytest.fixture(autouse=True)
def house_style() -> Iterator[None]:
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.use_house_style()
        yield
        plt.close("all")


@pytest.fixture(scope="module")
def districts() -> pd.DataFrame:
    return data.acquire("bundled").sample(400, random_state=1)


def make_scores() -> pd.DataFrame:
    rmse = {"ridge": 0.7, "xgboost": 0.4, "decision_tree": 0.6}
    rows = [
        {"family": family, "part": part, "rmse": error + worse}
        for family, error in rmse.items()
        for part, worse in (("train", -0.1), ("val", 0.0), ("test", 0.01))
    ]
    scores = pd.DataFrame(rows)
    return scores.assign(mae=scores.rmse * 0.7, mse=scores.rmse**2, r2=1 - scores.rmse**2)


def make_trials() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "state": ["complete", "complete", "pruned", "complete", "complete"],
            "val_rmse": [0.50, 0.55, 0.90, 0.45, 0.48],
            "alpha": [1e-4, 1e-2, 1.0, 1e-3, 1e-1],
            "depth": [3, 4, 5, 6, 7],
            "weights": ["uniform", "distance", "uniform", "distance", "uniform"],
        },
        index=pd.RangeIndex(5, name="trial"),
    )


SPACE = {
    "alpha": Range(1e-5, 10.0, log=True),
    "depth": Range(2, 8),
    "weights": Range(0, 1),
}


def make_batches(count: int) -> pd.DataFrame:
    errors = np.random.default_rng(0).uniform(0.3, 0.5, count)
    columns = {"rmse": errors, "mae": errors * 0.7, "bias": errors - 0.4}
    columns |= {"r2_score": 1 - errors, "coverage": 1 - errors / 4}
    found = pd.DataFrame(columns, index=pd.RangeIndex(count, name="batch")).add_prefix("batch_")
    shifts = np.where(np.arange(count) % 10 == 9, 2 + errors, np.nan)
    return found.assign(estimated_rmse=0.4, estimated_mae=0.3, largest_shift=shifts)


def quality(count: int, **changes: float) -> Figure:
    batches = make_batches(count).assign(**changes)
    plain = batches.filter(like="batch_").rename(columns=lambda name: name[6:])
    ends = {f"{name}_{end}": plain[name] for name in plain for end in ("low", "high")}
    ends |= dict(batches.filter(like="estimated_"))
    chance = pd.DataFrame({"low": plain.min(), "high": plain.max()})
    return plots.quality_grid(batches, plain.assign(**ends), chance)


def strangeness(count: int, alarmed: tuple[int, ...]) -> Axes:
    return plots.strangeness(make_batches(count), usual=3.4, alarming=4.5, alarmed=alarmed)


SHIFTS = pd.DataFrame(
    {
        "kind": ["level", "place", "missing", "spread", "joint"],
        "name": ["MedInc", "Los Angeles", "HouseAge", "AveRooms", "all columns"],
        "effect": [0.4, -0.1, 0.02, 0.1, 0.5],
        "z": [9.0, -4.0, 2.0, 1.0, 0.5],
    }
)


def make_history(months: int) -> pd.DataFrame:
    at = pd.date_range("2026-01-31", periods=months, freq="ME", tz="UTC")
    errors = np.linspace(0.4, 0.6, months)
    states = ["quiet"] * (months - 1) + ["alarm"]
    return pd.DataFrame({"at": at, "rmse": errors, "estimated_rmse": 0.4, "state": states})


def make_predicted(districts: pd.DataFrame) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.4, len(districts))
    return districts[data.TARGET].to_numpy() + noise


UNPRICED = [f"batch_{name}" for name in ("rmse", "mae", "bias", "r2_score", "coverage")]
FIGURES: dict[str, Callable[[pd.DataFrame], Axes | Figure]] = {
    "price_map": plots.price_map,
    "distributions": plots.distributions,
    "price_histogram": plots.price_histogram,
    "correlations": plots.correlations,
    "binned_price": lambda districts: plots.binned_price(districts, "MedInc"),
    "binned_price, skewed": lambda districts: plots.binned_price(districts, "AveOccup"),
    "outliers": plots.outliers,
    "variogram": lambda districts: plots.variogram(exploration.reach(districts)),
    "transfer": lambda districts: plots.transfer(geography.transfer(districts)),
    "metric_grid": lambda _: plots.metric_grid(make_scores()),
    "importance_bars": lambda _: plots.importance_bars(
        pd.Series({"MedInc": 0.4, "HouseAge": -0.1}), title="What moves it?", unit="dollars"
    ),
    "residuals": lambda districts: plots.residuals(
        districts[data.TARGET].to_numpy(), make_predicted(districts)
    ),
    "error_map": lambda districts: plots.error_map(
        districts, make_predicted(districts) - districts[data.TARGET].to_numpy()
    ),
    "search_history": lambda _: plots.search_history(make_trials()),
    "search_slices": lambda _: plots.search_slices(make_trials(), SPACE),
    "quality, one batch": lambda _: quality(1),
    "quality, few": lambda _: quality(3),
    "quality, many": lambda _: quality(2064),
    "quality, without prices": lambda _: quality(30, **dict.fromkeys(UNPRICED, np.nan)),
    "strangeness": lambda _: strangeness(400, (19, 29)),
    "strangeness, quiet": lambda _: strangeness(30, ()),
    "shift_bars": lambda _: plots.shift_bars(SHIFTS, level=3.4, alarm=True),
    "session_history, one": lambda _: plots.session_history(make_history(1)),
    "session_history": lambda _: plots.session_history(make_history(14)),
}


def panels(drawn: Axes | Figure) -> list[Axes]:
    return [axes for axes in figure_of(drawn).axes if axes.get_visible()]


def figure_of(drawn: Axes | Figure) -> Figure:
    figure = drawn.get_figure(root=True)
    assert figure is not None
    return figure


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_without_a_warning_and_has_a_title(name, districts):
    drawn = FIGURES[name](districts)
    figure_of(drawn).canvas.draw()
    titles = [axes.get_title(loc="left") for axes in panels(drawn)]
    assert any(titles) or figure_of(drawn).get_suptitle()


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "correlations"])
def test_every_axis_of_numbers_says_what_it_counts(name, districts):
    drawn = FIGURES[name](districts)
    for axes in panels(drawn):
        sharing = axes.get_shared_x_axes().get_siblings(axes)
        assert any(panel.get_xlabel() for panel in sharing) or axes.get_label() == "<colorbar>"
        if name not in {"metric_grid", "importance_bars", "shift_bars"}:
            assert axes.get_ylabel() or figure_of(drawn).get_supylabel()


@pytest.mark.parametrize("name", ["price_map", "distributions", "binned_price", "outliers"])
def test_missing_values_in_the_features_are_left_out(name, districts):
    holed = districts.copy()
    holed.iloc[:5, :8] = np.nan
    figure_of(FIGURES[name](holed)).canvas.draw()


@pytest.mark.parametrize("name", ["binned_price", "binned_price, skewed", "outliers", "transfer"])
def test_columns_in_which_all_are_alike_are_drawn(name, districts):
    alike = districts.assign(MedInc=0.0, AveOccup=0.0)
    figure_of(FIGURES[name](alike)).canvas.draw()


def test_the_limit_of_the_census_is_drawn_where_prices_stand_at_it(districts):
    prices = districts[data.TARGET].to_numpy()
    with_cap, without = (plots.residuals(one, one) for one in (prices, prices + 10))
    labels = [panels(drawn)[0].get_legend_handles_labels()[1] for drawn in (with_cap, without)]
    assert ["cap of the prices" in one for one in labels] == [True, False]


def test_an_error_map_leaves_out_districts_without_a_place(districts):
    holed = districts.copy()
    holed.iloc[:5, 6:8] = np.nan
    plots.error_map(holed, np.zeros(len(holed)))
    for column in ("Latitude", "Longitude"):
        nowhere = districts.assign(**{column: np.nan})
        figure_of(plots.error_map(nowhere, np.ones(len(nowhere)))).canvas.draw()


def test_families_stand_in_order_of_their_validation_error():
    first = panels(plots.metric_grid(make_scores()))[0]
    shown = [label.get_text() for label in first.get_yticklabels()]
    assert shown == ["XGBoost", "Decision tree", "Ridge"]


def test_bars_of_an_error_are_labelled_in_dollars():
    rmse = panels(plots.metric_grid(make_scores()))[0]
    assert {"$30.0k", "$40.0k", "$41.0k"} <= {text.get_text() for text in rmse.texts}


def test_scores_of_the_test_part_alone_can_be_drawn():
    scores = make_scores().query("part == 'test'")
    first = panels(plots.metric_grid(scores))[0]
    assert first.get_yticklabels()[0].get_text() == "XGBoost"


def test_importances_stop_at_twenty_and_say_so():
    many = pd.Series(np.linspace(-1, 1, 27), index=[f"feature {n}" for n in range(27)])
    axes = plots.importance_bars(many, title="What moves it?", unit="coefficient")
    assert len(axes.patches) == plots.MOST_BARS
    assert "7 smaller ones are left out" in axes.get_xlabel()


def test_negative_coefficients_have_a_colour_of_their_own():
    signed = pd.Series({"up": 1.0, "down": -2.0})
    axes = plots.importance_bars(signed, title="What moves it?", unit="coefficient")
    up, down = axes.patches
    assert up.get_facecolor() != down.get_facecolor()


def test_colours_of_an_error_map_are_the_same_size_either_side_of_zero(districts):
    axes = plots.error_map(districts, np.linspace(-1, 3, len(districts)))
    low, high = axes.collections[0].get_clim()
    assert low == -high


def test_the_best_trial_so_far_never_gets_worse():
    (best,) = plots.search_history(make_trials()).lines
    assert (np.diff(np.asarray(best.get_ydata(), dtype=float)) <= 0).all()


def test_a_search_says_what_it_gained_over_the_defaults():
    title = plots.search_history(make_trials()).get_title(loc="left")
    assert title == "The search took $5.0k off the error of the defaults"


def test_a_search_of_one_trial_claims_no_gain():
    title = plots.search_history(make_trials().iloc[:1]).get_title(loc="left")
    assert title == "No trial was better than the defaults"


def test_hyperparameters_that_span_decades_have_a_logarithmic_axis():
    drawn = plots.search_slices(make_trials(), SPACE)
    assert [axes.get_xscale() for axes in panels(drawn)] == ["log", "linear", "linear"]


def test_a_hyperparameter_that_is_searched_by_factors_is_drawn_so_where_there_are_some():
    trials = make_trials().assign(alpha=np.geomspace(1e-4, 1e-3, len(make_trials())))
    drawn = plots.search_slices(trials, {"alpha": SPACE["alpha"]})
    assert panels(drawn)[0].get_xscale() == "log"
    alike = trials.assign(alpha=np.linspace(1e-4, 2e-4, len(trials)))
    assert panels(plots.search_slices(alike, {"alpha": SPACE["alpha"]}))[0].get_xscale() == "linear"


def test_a_small_gain_is_told_to_the_dollar():
    trials = make_trials()
    trials["val_rmse"] = 0.4 - 0.0003 * (trials.index == 1)
    title = plots.search_history(trials).get_title(loc="left")
    assert title == "The search took $30 off the error of the defaults"


def test_an_extreme_batch_is_counted_instead_of_flattening_the_others():
    batches = make_batches(100)
    batches.loc[7, "batch_r2_score"] = -400
    names = [name.removeprefix("batch_") for name in UNPRICED]
    chance = pd.DataFrame({"low": 0.3, "high": 0.9}, index=names)
    ends = [f"{name}_{end}" for name in names for end in ("low", "high")]
    sliding = pd.DataFrame(0.5, batches.index, [*names, *ends])
    axes = panels(plots.quality_grid(batches, sliding, chance))[3]
    assert axes.get_ylim()[0] > -1
    assert [text.get_text() for text in axes.texts] == ["1 beyond this picture"]


def test_what_raised_the_alarm_is_drawn_apart_from_the_rest():
    axes = strangeness(400, (19, 29))
    drawn = {one.get_label(): len(one.get_offsets()) for one in axes.collections}
    assert drawn == {"quiet": 38, "in the alarm": 2}
    assert "No batch" in strangeness(30, ()).get_title(loc="left")


def test_effects_are_written_in_words():
    axes = plots.shift_bars(SHIFTS, level=3.4, alarm=True)
    words = [text.get_text() for text in axes.texts]
    assert "+0.40 SD of ranks" in words
    assert "−10.0 % of rows" in words
    assert axes.get_title(loc="left").startswith("2 of 5")


@pytest.mark.parametrize(
    ("level", "alarm", "told", "red"),
    [
        (3.4, False, "Quiet: over all rows 2 of 5 moved far", 0),
        (10, False, "None of 5 watched quantities moved far enough for an alarm", 0),
        (3.4, True, "2 of 5 watched quantities moved far enough for an alarm", 2),
        (10, True, "The alarm is of some batches", 0),
    ],
)
def test_bars_and_their_title_follow_the_verdict(level, alarm, told, red):
    axes = plots.shift_bars(SHIFTS, level=level, alarm=alarm)
    assert axes.get_title(loc="left").startswith(told)
    assert sum(to_hex(bar.get_facecolor()) == RED.lower() for bar in axes.patches[:5]) == red


def test_alarms_are_ringed_in_the_history():
    axes = plots.session_history(make_history(14))
    (rings,) = axes.collections
    assert len(rings.get_offsets()) == 1
    assert axes.get_title(loc="left") == "1 alarm in 14 sessions"


@pytest.mark.parametrize(
    ("price", "text"), [(0, "$0"), (2, "$200k"), (-0.25, "−$25k"), (0.3825, "$38.25k")]
)
def test_prices_are_written_in_dollars(price, text):
    assert plots.dollars(price) == text


@pytest.mark.parametrize(
    ("prices", "texts"),
    [
        ([0, 1, 2.5], ["$0", "$100k", "$250k"]),
        ([0.4119, 0.412, 0.4121], ["$41,190", "$41,200", "$41,210"]),
        ([0.40205, 0.4021], ["$40,205", "$40,210"]),
        ([-0.005, 0, 0.005], ["−$0.5k", "$0", "$0.5k"]),
    ],
)
def test_ticks_of_an_axis_are_written_alike(prices, texts):
    assert DollarTicks().format_ticks(prices) == texts


@pytest.mark.parametrize(
    ("shift", "text"),
    [(-1e-4, "0.00 SD of ranks"), (1e-4, "0.00 SD of ranks"), (-0.3, "−0.30 SD of ranks")],
)
def test_a_shift_of_nothing_has_no_side(shift, text):
    shown = plots.shift_bars(SHIFTS.assign(effect=shift).head(1), level=3.4, alarm=True)
    assert [one.get_text() for one in shown.texts] == [text]


def test_a_dollar_sign_is_never_read_as_mathematics(districts):
    assert not plots.binned_price(districts, "MedInc").xaxis.label.get_parse_math()


def test_the_cap_is_drawn_where_prices_stand_at_it(districts):
    with_it = plots.price_histogram(districts.assign(MedHouseVal=5.00001))
    assert "cap" in with_it.get_title(loc="left")
    without = plots.price_histogram(districts.assign(MedHouseVal=6.0))
    assert without.get_title(loc="left") == ""
    assert not without.lines
    plt.close("all")


def test_a_figure_is_shown_once_with_its_words_and_closed(districts, monkeypatch):
    shown: list[Image] = []
    monkeypatch.setattr(plots.style, "display", shown.append)
    plots.show(plots.price_histogram(districts), alt="Histogram of prices")
    content, about = format_display_data(shown[0])
    assert len(shown) == 1
    assert base64.b64decode(content["image/png"]).startswith(b"\x89PNG")
    assert about["image/png"]["alt"] == "Histogram of prices"
    assert plt.get_fignums() == []
