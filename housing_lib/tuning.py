"""One Optuna study of one family: the search for its best hyperparameters."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.pipeline import Pipeline
from xgboost import XGBRegressor
from xgboost.callback import EarlyStopping, TrainingCallback

from housing_lib.evaluation import METRICS, metrics
from housing_lib.families import Range, Stages, get_family, make_estimator
from housing_lib.features import make_preprocessing
from housing_lib.parts import Part


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
    """A study: its trials, the best of them, and that one's fitted estimator."""

    family: str
    seed: int
    study: optuna.Study
    trials: list[Trial] = field(default_factory=list)
    estimator: Any = None

    @property
    def best(self) -> Trial:
        """The trial of the lowest validation RMSE."""
        finished = [trial for trial in self.trials if trial.state == "complete"]
        return min(finished, key=lambda trial: trial.metrics["val_rmse"])

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

    def best_model(self, train: Part) -> Pipeline:
        """The best trial's model of raw districts: its estimator behind its preprocessing.

        The same as `make_model(family, best.params).fit(...)` on the training
        districts, without fitting again.
        """
        preprocessing = make_preprocessing().fit(train.districts)
        return Pipeline([("preprocessing", preprocessing), ("estimator", self.estimator)])


def tune(
    family: str,
    train: Part,
    val: Part,
    *,
    n_trials: int,
    seed: int,
    on_trial: Callable[[Trial], None] | None = None,
) -> Search:
    """The search over one family's space for the lowest validation RMSE.

    Trials run one after another, so that a seed means the same numbers. The
    first one tries the shipped parameters; the sampler is TPE (Bergstra et al.
    2011), and a family that grows in stages drops trials below the median of
    their predecessors.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=_warm_up(family)),
    )
    defaults = get_family(family).defaults
    study.enqueue_trial({name: defaults[name] for name in get_family(family).space})
    search = Search(family, seed, study)
    for _ in range(n_trials):
        trial = _try_next(search, train, val)
        search.trials.append(trial)
        if on_trial:
            on_trial(trial)
    return search


def _warm_up(family: str) -> int:
    # A slow learner that ends best is behind at first, so boosting is not judged too early.
    stages = get_family(family).stages
    return stages.end // stages.step // 5 if stages else 0


def distributions(family: str) -> dict[str, BaseDistribution]:
    """A family's search space in Optuna's terms."""
    return {name: _distribution(values) for name, values in get_family(family).space.items()}


def _distribution(values: Range) -> BaseDistribution:
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=values.log, step=values.step or 1)
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _try_next(search: Search, train: Part, val: Part) -> Trial:
    started = time.perf_counter()
    asked = search.study.ask(distributions(search.family))
    try:
        estimator, params = _fit(search, asked, train, val)
    except optuna.TrialPruned:
        search.study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        seconds = time.perf_counter() - started
        return Trial(asked.number, asked.params, _last_reported(search), "pruned", seconds)
    scores = metrics(train.y, estimator.predict(train.X), prefix="train_")
    scores |= metrics(val.y, estimator.predict(val.X), prefix="val_")
    search.study.tell(asked, scores["val_rmse"])
    if search.study.best_trial.number == asked.number:
        search.estimator = estimator
    seconds = time.perf_counter() - started
    return Trial(asked.number, params, scores, "complete", seconds)


def _last_reported(search: Search) -> dict[str, float]:
    values = search.study.trials[-1].intermediate_values
    return {"val_rmse": values[max(values)]}


def _fit(search: Search, asked: optuna.Trial, train: Part, val: Part) -> tuple[Any, dict[str, Any]]:
    stages = get_family(search.family).stages
    estimator = make_estimator(search.family, asked.params, seed=search.seed)
    if stages is None:
        return estimator.fit(train.X, train.y), asked.params
    grow = GROW[type(estimator)]
    size = grow(estimator, stages, asked, train, val)
    return estimator, {**asked.params, stages.parameter: size}


def _grow_forest(
    estimator: RandomForestRegressor, stages: Stages, asked: optuna.Trial, train: Part, val: Part
) -> int:
    estimator.set_params(warm_start=True)
    for stage, size in enumerate(range(stages.step, stages.end + 1, stages.step)):
        estimator.set_params(n_estimators=size).fit(train.X, train.y)
        _report(asked, metrics(val.y, estimator.predict(val.X))["rmse"], stage)
    estimator.set_params(warm_start=False)
    return stages.end


def _grow_histograms(
    estimator: HistGradientBoostingRegressor,
    stages: Stages,
    asked: optuna.Trial,
    train: Part,
    val: Part,
) -> int:
    estimator.set_params(early_stopping=True, scoring="loss", n_iter_no_change=stages.patience)
    estimator.fit(train.X, train.y, X_val=val.X, y_val=val.y)
    estimator.set_params(early_stopping=False, max_iter=estimator.n_iter_)
    return int(estimator.n_iter_)


def _grow_boosters(
    estimator: XGBRegressor, stages: Stages, asked: optuna.Trial, train: Part, val: Part
) -> int:
    waiting = EarlyStopping(rounds=stages.patience or stages.end, save_best=True)
    estimator.set_params(callbacks=[_Pruning(asked, stages.step), waiting])
    estimator.fit(train.X, train.y, eval_set=[(val.X, val.y)], verbose=False)
    size = int(estimator.get_booster().num_boosted_rounds())
    estimator.set_params(callbacks=None, n_estimators=size)
    return size


GROW = {
    RandomForestRegressor: _grow_forest,
    HistGradientBoostingRegressor: _grow_histograms,
    XGBRegressor: _grow_boosters,
}


class _Pruning(TrainingCallback):
    """Reports XGBoost's validation error at the end of each stage."""

    def __init__(self, asked: optuna.Trial, step: int) -> None:
        super().__init__()
        self.asked = asked
        self.step = step

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """False, so that training goes on."""
        if (epoch + 1) % self.step == 0:
            error = evals_log["validation_0"]["rmse"][-1]
            _report(self.asked, error, (epoch + 1) // self.step - 1)
        return False


def _report(asked: optuna.Trial, error: float, stage: int) -> None:
    asked.report(error, stage)
    if asked.should_prune():
        raise optuna.TrialPruned


def describe_space(family: str) -> pd.DataFrame:
    """One row a hyperparameter: where the search looks, how, and the shipped value."""
    found = get_family(family)
    rows = {
        name: {
            "from": values.low,
            "to": values.high,
            "scale": "log" if values.log else "linear",
            "shipped": found.defaults[name],
        }
        for name, values in found.space.items()
    }
    return pd.DataFrame(rows).T.rename_axis("hyperparameter")


def describe_fit(trial: Trial) -> pd.DataFrame:
    """One row a metric: on the training districts, on the validation districts."""
    rows = {
        metric.upper().replace("R2", "R²"): {
            "training": trial.metrics[f"train_{metric}"],
            "validation": trial.metrics[f"val_{metric}"],
        }
        for metric in METRICS
    }
    return pd.DataFrame(rows).T.rename_axis("metric (100,000 USD)")


def describe_params(search: Search) -> pd.DataFrame:
    """One row a hyperparameter: the shipped value and the one that won."""
    shipped = get_family(search.family).defaults
    best = search.best.params
    return pd.DataFrame({"shipped": pd.Series(shipped), "won": pd.Series(best)}, index=list(best))
