"""What a search says to a reader: where it looked, what won, and whether more would pay."""

import numpy as np
import pandas as pd

from housing_lib.families import Family, Range, Stages, get_family
from housing_lib.makeup import BESIDE, beyond_one
from housing_lib.summary import dollars, percent
from housing_lib.tables import usd
from housing_lib.trials import FEWEST_TRIALS, Search

LITTLE = 0.002  # in 100,000 USD: by so much two trainings differ that are alike but for their seed


def describe_space(family: str, *, growth: float = 1.0) -> pd.DataFrame:
    """One row a hyperparameter: where the search looks, how, and the shipped value.

    `growth` as for `tuning.tune`, which makes steps longer.

    Raises
    ------
    FamilyError
        If there is no such family.
    """
    found = get_family(family)
    rows = {
        name: {
            "from": _written(name, values.low, growth),
            "to": _written(name, values.high, growth),
            "scale": "log" if values.log else "linear",
            "shipped": _written(name, found.defaults[name], growth),
        }
        for name, values in found.space.items()
    }
    return pd.DataFrame(rows).T.rename_axis("hyperparameter")


def _written(name: str, value: float, growth: float = 1.0) -> str:
    return f"{value / growth if name == 'learning_rate' else value:.4g}"


def describe_search(family: str, *, growth: float = 1.0) -> str:
    """How a family's trials grow and end, and what becomes of the best one, in Markdown.

    `growth` as for `tuning.tune`, which makes families smaller.

    Raises
    ------
    FamilyError
        If there is no such family.
    """
    found = get_family(family)
    stages = found.stages and found.stages.shortened(growth)
    told = [_growing(stages), *_more_than_a_trial(family), *_of_its_kind(found, growth)]
    return " ".join(sentence for sentence in told if sentence)


def _growing(stages: Stages | None) -> str:
    if stages is None:
        return "A trial is a single fit."
    told = []
    if stages.patience:
        told.append(f"stops growing once {stages.patience} more bring nothing better")
    if stages.step < stages.end:
        told.append("is cut short (pruned) where it falls behind the median of those before it")
    ends = f"; it {', and '.join(told)}" if told else ""
    return f"A trial grows up to {stages.end:,} trees{ends}."


def _more_than_a_trial(family: str) -> list[str]:
    """What the best trial's model has beside the trial's estimator, a sentence each."""
    beyond = beyond_one(family)
    more = f"The best trial's model is more than the trial: {beyond}." if beyond else ""
    return [more, f"Beside the best trial's model {BESIDE}"]


def _of_its_kind(family: Family, growth: float) -> list[str]:
    """What a reader has to know of this kind of family alone, a sentence each."""
    said = {
        "How many trees it grows is not searched.": family.stages,
        "Trees split between a few dozen levels of each feature instead of all its values: about "
        "as good here, and quicker.": not family.linear,
        "As it grows fewer trees here, its steps are as much longer: `learning_rate` is shown as "
        "it is then.": "learning_rate" in family.space and growth < 1,
        "`percentile` is how many in a hundred features it may use: those that go with the price "
        "most closely.": "percentile" in family.space,
    }
    return [sentence for sentence, holds in said.items() if holds]


def whole_beside_trial(search: Search, whole: float) -> str:
    """Why the RMSE of the whole model is not the best trial's (100,000 USD), if they differ."""
    alone = search.best.metrics["val_rmse"]
    if dollars(alone) == dollars(whole):
        return ""
    return (
        f"In the figures below that trial stands at {usd(alone)}: a trial is its estimator among "
        "neighbours alone, and the model has more beside it, as told above."
    )


def describe_params(search: Search) -> pd.DataFrame:
    """One row a hyperparameter: the shipped value, the one that won, and how far up its range."""
    family, growth = get_family(search.family), search.growth
    rows = {
        name: {
            "shipped": _written(name, family.defaults[name], growth),
            "won": _written(name, value),
            "how far up its range": _how_far_up(name, value, family.space.get(name), growth),
        }
        for name, value in search.best.params.items()
    }
    return pd.DataFrame(rows).T.rename_axis("hyperparameter")


def _how_far_up(name: str, value: float, values: Range | None, growth: float) -> str:
    """The place of a value between the ends of its range, in per cent."""
    if values is None:
        return "grown"
    searched = value * growth if name == "learning_rate" else value
    low, high, found = values.low, values.high, searched
    if values.log:
        low, high, found = np.log([low, high, found])
    return percent((found - low) / (high - low))


def budget_verdict(search: Search) -> str:
    """Whether more trials would pay, by what the second half of them brought, in Markdown."""
    total = len(search.trials)
    if total < FEWEST_TRIALS:
        return (
            f"**Nobody can tell from {total} trials**; {FEWEST_TRIALS} or more would say something."
        )
    early = min(one.metrics["val_rmse"] for one in search.complete if one.number < total // 2)
    gain = early - search.best.metrics["val_rmse"]
    found = (
        f"The second half of the {total} trials took {usd(gain)} off the best error; the best "
        f"trial was number {search.best.number}."
    )
    if gain < LITTLE:
        return (
            f"**The budget was enough.** {found} Trainings that differ only in their seed differ "
            f"by about {usd(LITTLE)}."
        )
    more = f"`housing tune {search.family} --trials {2 * total}` goes on where this one ended."
    return f"**More trials may pay.** {found} {more}"
