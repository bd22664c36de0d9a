"""One trial's estimator, grown stage by stage until it falls behind or more brings nothing."""

from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
from sklearn.ensemble import HistGradientBoostingRegressor
from xgboost import XGBRegressor
from xgboost.callback import EarlyStopping, TrainingCallback

from housing_lib.accuracy import metrics
from housing_lib.estimators import RoundedForest
from housing_lib.families import Stages, get_family, make_estimator
from housing_lib.parts import Part

Fit = Callable[..., Any]


def stages_of(family: str, growth: float) -> Stages | None:
    """How a family grows, if it does, to a share of its size.

    Raises
    ------
    FamilyError
        If there is no such family.
    """
    stages = get_family(family).stages
    return stages and stages.shortened(growth)


def params_of(asked: optuna.Trial, growth: float) -> dict[str, Any]:
    """The parameters of a trial as it is fitted: what grows less takes larger steps."""
    params = asked.params
    if "learning_rate" in params:
        params["learning_rate"] /= growth
    return params


def fit(
    asked: optuna.Trial, train: Part, val: Part, *, family: str, seed: int, growth: float
) -> tuple[Any, dict[str, Any]]:
    """The estimator of a trial's parameters, and these with the size to which it grew.

    Raises
    ------
    TrialPruned
        If it fell behind the trials before it.
    FamilyError
        If there is no such family.
    """
    params, stages = params_of(asked, growth), stages_of(family, growth)
    if stages:
        params[stages.parameter] = stages.end
    estimator = make_estimator(family, params, seed=seed)
    fit_it = partial(estimator.fit, train.X, train.y)
    if stages is None:
        return fit_it(), params
    size = GROW[type(estimator)](estimator, fit_it, stages, asked, val)
    return estimator, {**params, stages.parameter: size}


def _grow_forest(
    forest: RoundedForest, fit: Fit, stages: Stages, asked: optuna.Trial, val: Part
) -> int:
    forest.set_params(warm_start=True)
    for stage, size in enumerate([*range(stages.step, stages.end, stages.step), stages.end]):
        forest.set_params(n_estimators=size)
        fit()
        _report(asked, metrics(val.y, forest.predict(val.X))["rmse"], stage)
    forest.set_params(warm_start=False)
    return stages.end


def _grow_histograms(
    booster: HistGradientBoostingRegressor, fit: Fit, stages: Stages, asked: optuna.Trial, val: Part
) -> int:
    booster.set_params(early_stopping=True, scoring="loss", n_iter_no_change=stages.patience)
    fit(X_val=val.X, y_val=val.y)
    booster.set_params(early_stopping=False, max_iter=booster.n_iter_)
    return int(booster.n_iter_)


def _grow_boosters(
    booster: XGBRegressor, fit: Fit, stages: Stages, asked: optuna.Trial, val: Part
) -> int:
    waiting = EarlyStopping(rounds=stages.patience or stages.end, save_best=True)
    booster.set_params(callbacks=[_Pruning(asked, stages.step), waiting])
    fit(eval_set=[(val.X, val.y)], verbose=False)
    size = int(booster.get_booster().num_boosted_rounds())
    booster.set_params(callbacks=None, n_estimators=size)
    return size


GROW: dict[type, Callable[..., int]] = {
    RoundedForest: _grow_forest,
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
