"""One trial of a family: what is tried, how it scores, and how the study keeps it."""

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from housing_lib import growing, studies
from housing_lib.accuracy import metrics
from housing_lib.families import Range, get_family, make_model
from housing_lib.features import prepared_before
from housing_lib.model import DistrictModel
from housing_lib.parts import Part
from housing_lib.processes import one_blas_thread

FEWEST_TRIALS = 10  # fewer say nothing of a search


@dataclass(frozen=True)
class Trial:
    """One set of hyperparameters that was tried: how it scored, or that it was pruned."""

    number: int
    params: dict[str, Any]
    metrics: dict[str, float]
    state: str
    seconds: float


@dataclass
class Search:
    """A study: its trials, the best of them, and that one's fitted estimator.

    `growth` is the share of its size to which the family may grow; `fitted` is
    the number of the trial whose estimator is kept.
    """

    family: str
    seed: int
    growth: float
    study: optuna.Study
    trials: list[Trial] = field(default_factory=list)
    estimator: Any = None
    fitted: int | None = None

    @property
    def complete(self) -> list[Trial]:
        """The trials that were not pruned."""
        return [trial for trial in self.trials if trial.state == "complete"]

    @property
    def best(self) -> Trial:
        """The trial of the lowest validation RMSE."""
        return min(self.complete, key=lambda trial: trial.metrics["val_rmse"])

    def count(self, state: str) -> int:
        """The number of trials that ended in a state, `complete` or `pruned`."""
        return sum(trial.state == state for trial in self.trials)

    @property
    def table(self) -> pd.DataFrame:
        """One row a trial: number, state, seconds, validation RMSE, parameters."""
        rows = [
            {"trial": trial.number, "state": trial.state, "seconds": trial.seconds}
            | trial.metrics
            | trial.params
            for trial in self.trials
        ]
        return pd.DataFrame(rows).set_index("trial")

    @property
    def importances(self) -> pd.Series:
        """How much each hyperparameter decides of the error, largest first; together 1.

        By PED-ANOVA (Watanabe et al. 2023) over the complete trials; empty where these
        are too few, or where there is only one hyperparameter.
        """
        if len(self.complete) < FEWEST_TRIALS or len(get_family(self.family).space) == 1:
            return pd.Series(dtype="float64")
        return pd.Series(optuna.importance.get_param_importances(self.study))

    def best_model(self, train: Part) -> DistrictModel:
        """The model of raw districts with the best trial's parameters.

        The same as `make_model(family, best.params, growth=growth).fit(...)` on the training
        districts; where one seed is enough, without fitting its estimator again.
        """
        model = make_model(self.family, self.best.params, seed=self.seed, growth=self.growth)
        reused = self.estimator if get_family(self.family).repeats == 1 else None
        before = prepared_before(train)
        return model.fit(train.districts, train.y, near_fitted=reused, prepared=before)


def pruner_of(family: str, growth: float = 1.0) -> optuna.pruners.BasePruner:
    """What drops trials that fall behind those before them, where there is more than one stage."""
    stages = growing.stages_of(family, growth)
    if stages is None or stages.step == stages.end:
        return optuna.pruners.NopPruner()
    # A slow learner that ends best is behind at first, so boosting is not judged too early.
    warm_up = stages.end // stages.step // 5
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=warm_up)


def distributions(family: str) -> dict[str, BaseDistribution]:
    """A family's search space in Optuna's terms.

    Raises
    ------
    FamilyError
        If there is no such family.
    """
    return {name: _distribution(values) for name, values in get_family(family).space.items()}


def _distribution(values: Range) -> BaseDistribution:
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=values.log, step=values.step or 1)
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def sampler_of(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """What proposes the next trial: TPE with a seed of its own."""
    # One of its own for each trial, so that a search that was stopped draws the same.
    return optuna.samplers.TPESampler(seed=(search.seed + number) % 2**32, n_startup_trials=5)


def shipped_parameters(family: str) -> dict[str, Any]:
    """The hyperparameters that the project ships, of those that are searched."""
    found = get_family(family)
    return {name: found.defaults[name] for name in found.space}


def ended_trials(study: optuna.Study) -> list[Trial]:
    """The trials that ended, in order."""
    ended = study.get_trials(states=studies.ENDED)
    return [Trial(**trial.user_attrs["trial"]) for trial in ended]


def judge_trial(search: Search, train: Part, val: Part, asked: optuna.Trial) -> tuple[Trial, Any]:
    """A trial that ended, and its estimator; None if it was pruned."""
    with one_blas_thread():  # so that a trial is the same wherever it runs
        return _fit_and_score(search, train, val, asked)


def _fit_and_score(
    search: Search, train: Part, val: Part, asked: optuna.Trial
) -> tuple[Trial, Any]:
    started = time.perf_counter()
    try:
        estimator, params = growing.fit(
            asked, train, val, family=search.family, seed=search.seed, growth=search.growth
        )
    except optuna.TrialPruned:
        seconds = time.perf_counter() - started
        last = _last_reported(asked.study.trials[asked.number])
        params = growing.params_of(asked, search.growth)
        return Trial(asked.number, params, {"val_rmse": last}, "pruned", seconds), None
    scores = metrics(train.y, estimator.predict(train.X), prefix="train_")
    scores |= metrics(val.y, estimator.predict(val.X), prefix="val_")
    seconds = time.perf_counter() - started
    return Trial(asked.number, params, scores, "complete", seconds), estimator


def keep_trial(search: Search, asked: optuna.Trial, trial: Trial) -> Trial:
    """The trial, after it was told to the study and kept there."""
    asked.set_user_attr("trial", plain_trial(trial))
    if trial.state == "pruned":
        search.study.tell(asked, state=TrialState.PRUNED)
    else:
        search.study.tell(asked, trial.metrics["val_rmse"])
    return trial


def plain_trial(trial: Trial) -> Any:
    """A trial as JSON holds it."""
    return json.loads(json.dumps(asdict(trial)))


def _last_reported(trial: FrozenTrial) -> float:
    return trial.intermediate_values[max(trial.intermediate_values)]
