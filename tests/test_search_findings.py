"""What a search says: where it looked, which hyperparameters decide, and whether more would pay."""

from dataclasses import replace

import optuna
import pytest

from housing_lib import data, families, features, growing, search_findings, tuning
from housing_lib.trials import FEWEST_TRIALS, Search, Trial, pruner_of


def search_of(*errors: float, family: str = "xgboost", growth: float = 1.0, **params: float):
    """A search whose trials ended with `errors`, all with the same parameters."""
    trials = [
        Trial(number, params, {"val_rmse": error}, "complete", 1.0)
        for number, error in enumerate(errors)
    ]
    return Search(family, 0, growth, optuna.create_study(), trials)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A real search of a decision tree, as long as is needed to say something."""
    districts = data.acquire().sample(2_000, random_state=0)
    split = features.preprocess(districts, data.split(districts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_ROOT", str(tmp_path_factory.mktemp("root")))
        return tuning.tune(
            "decision_tree", split["train"], split["val"], n_trials=FEWEST_TRIALS, seed=0
        )


def test_the_space_is_described_as_it_is_searched():
    table = search_findings.describe_space("xgboost")
    assert set(table.index) == set(families.FAMILIES["xgboost"].space)
    assert list(table.loc["learning_rate"]) == ["0.03", "0.12", "log", "0.045"]


def test_a_quick_look_shows_its_longer_steps():
    table = search_findings.describe_space("xgboost", growth=0.1)
    assert list(table.loc["learning_rate"]) == ["0.3", "1.2", "log", "0.45"]
    assert table.loc["max_depth", "to"] == "10"


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("ridge", "A trial is a single fit."),
        (
            "random_forest",
            "A trial grows up to 100 trees; it is cut short (pruned) where it falls behind the "
            "median of those before it.",
        ),
        (
            "gradient_boosting",
            "A trial grows up to 1,000 trees; it stops growing once 30 more bring nothing better.",
        ),
    ],
)
def test_a_search_is_described_as_its_family_is_searched(family, words):
    beside = " Beside the best trial's model stands one of the same kind that sees no neighbours; "
    assert search_findings.describe_search(family).startswith(words + beside)


def test_what_the_best_model_has_beside_a_trial_is_told():
    told = search_findings.describe_search("xgboost")
    assert "fitted with 2 seeds, every other of them on what a line leaves, and 2 small" in told


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_familys_model_has_one_beside_it_that_sees_no_neighbours(family):
    assert "one of the same kind that sees no neighbours" in search_findings.describe_search(family)


def test_linear_families_are_told_nothing_of_trees():
    told = search_findings.describe_search("linear_regression", growth=0.2)
    assert not any(word in told.lower() for word in ("trees", "learning_rate"))
    assert "`percentile` is how many in a hundred features" in told
    boosted = search_findings.describe_search("xgboost", growth=0.2)
    assert "How many trees it grows is not searched." in boosted
    assert "`learning_rate` is shown as it is then" in boosted


def test_a_model_that_is_not_as_good_as_its_trial_says_why():
    found = search_of(0.4157)
    assert search_findings.whole_beside_trial(found, 0.4157) == ""
    told = search_findings.whole_beside_trial(found, 0.41886)
    assert told.startswith("In the figures below that trial stands at 41,570 dollars")


def test_the_importances_of_hyperparameters_share_the_whole(searched):
    found = searched.importances
    assert set(found.index) == set(families.FAMILIES["decision_tree"].space)
    assert found.sum() == pytest.approx(1)
    assert found.is_monotonic_decreasing


def test_a_handful_of_trials_says_nothing_of_importances_or_of_the_budget(searched):
    few = replace(searched, trials=searched.trials[:3])
    assert few.importances.empty
    assert search_findings.budget_verdict(few).startswith("**Nobody can tell from 3 trials**")


def test_one_hyperparameter_is_compared_with_none():
    assert search_of(*[0.4] * 12, family="ridge", alpha=1.0).importances.empty


def test_a_search_that_still_gained_asks_for_more_trials():
    text = search_findings.budget_verdict(search_of(*[0.5] * 6, *[0.47] * 5, 0.45))
    assert text.startswith("**More trials may pay.**")
    assert "took 5,000 dollars off" in text
    assert "number 11" in text
    assert "`housing tune xgboost --trials 24`" in text


def test_a_search_whose_second_half_gained_less_than_a_seed_had_enough():
    text = search_findings.budget_verdict(search_of(0.5, *[0.4501] * 5, *[0.45] * 6))
    assert text.startswith("**The budget was enough.**")
    assert "took 10 dollars off" in text


def test_what_won_stands_beside_what_is_shipped_and_the_ends_of_its_range():
    won = {"max_depth": 10, "learning_rate": 0.3, "reg_lambda": 10**0.5, "n_estimators": 90}
    table = search_findings.describe_params(search_of(0.4, growth=0.1, **won))
    assert table["how far up its range"].str.replace("\xa0", " ").to_dict() == {
        "max_depth": "100 %", "learning_rate": "0 %", "reg_lambda": "50 %", "n_estimators": "grown",
    }  # fmt: skip
    assert table.loc["n_estimators", "won"] == "90"
    assert table.loc["learning_rate", "shipped"] == "0.45"


def test_a_quick_look_grows_as_far_as_it_says():
    told = search_findings.describe_search("random_forest", growth=0.2)
    assert told.startswith("A trial grows up to 20 trees. ")
    told = search_findings.describe_search("xgboost", growth=0.2)
    assert told.startswith("A trial grows up to 180 trees; it stops growing once")


@pytest.mark.parametrize("growth", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_trial_is_said_to_be_cut_short_where_it_can_be(family, growth):
    stages = growing.stages_of(family, growth)
    later = stages.end // stages.step - 1 if stages else 0
    study = optuna.create_study(pruner=pruner_of(family, growth))
    for error in (*[0.4] * 4, 0.5):
        trial = study.ask()
        trial.report(error, later)
        cut = trial.should_prune()
        study.tell(trial, error)
    told = search_findings.describe_search(family, growth=growth)
    assert cut == ("is cut short (pruned)" in told)
