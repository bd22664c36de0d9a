"""One Optuna study of one family: the search for its best hyperparameters."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from xgboost import XGBRegressor
from xgboost.callback import EarlyStopping, TrainingCallback

from housing_lib.evaluation import metrics
from housing_lib.families import Range, Stages, get_family, make_estimator, make_model
from housing_lib.model import DistrictModel
from housing_lib.parts import Part
from housing_lib.settings import get_settings

Fit = Callable[..., Any]


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

    `fitted` is the number of the trial whose estimator is kept.
    """

    family: str
    seed: int
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

    def best_model(self, train: Part) -> DistrictModel:
        """The best trial's model of raw districts, the estimator of the search inside it.

        The same as `make_model(family, best.params, repeats=1).fit(...)` on the
        training districts, without fitting that estimator again.
        """
        model = make_model(self.family, self.best.params, seed=self.seed, repeats=1)
        return model.fit(train.districts, train.y, near_fitted=self.estimator)


def tune(
    family: str,
    train: Part,
    val: Part,
    *,
    n_trials: int,
    seed: int,
    on_trial: Callable[[Trial], None] | None = None,
) -> Search:
    """The search over one family's space for the lowest validation RMSE, `n_trials` in all.

    Trials run one after another, so that a seed means the same numbers. The
    first one tries the shipped parameters; the sampler is TPE (Bergstra et al.
    2011), and a family that grows in stages drops trials below the median of
    their predecessors. Every trial is kept on disk as it ends: a search that
    was stopped goes on where it was, and comes to the same numbers.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = Search(family, seed, _open_study(family, train, val, seed))
    fit = partial(_fit, search, train, val)
    for number in range(n_trials):
        kept = _kept(search.study)
        trial = kept[number] if number < len(kept) else _try_next(search, fit, train, val)
        search.trials.append(trial)
        if on_trial:
            on_trial(trial)
    if search.estimator is None or search.best.number != search.fitted:
        search.estimator = make_estimator(family, search.best.params, seed=seed)
        search.estimator.fit(train.X, train.y)
    return search


def _open_study(family: str, train: Part, val: Part, seed: int) -> optuna.Study:
    """The study of exactly this search: same family, same data, same seed."""
    digest = hashlib.sha256(repr((get_family(family), seed)).encode())
    for part in (train, val):
        digest.update(part.X.tobytes() + part.y.tobytes())
    folder = get_settings().studies
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{family}-{digest.hexdigest()[:12]}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = JournalStorage(JournalFileBackend(str(folder / f"{name}.log")))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=_warm_up(family))
    study = optuna.create_study(
        storage=storage, study_name=name, pruner=pruner, load_if_exists=True
    )
    for stale in study.get_trials(states=(TrialState.RUNNING,)):  # its process was killed
        study.tell(stale.number, state=TrialState.FAIL)
    return study


def _kept(study: optuna.Study) -> list[Trial]:
    """The trials that ended, in order."""
    ended = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [Trial(**trial.user_attrs["trial"]) for trial in ended]


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


def _ask(search: Search, number: int) -> optuna.Trial:
    """The next trial to run: the shipped parameters first, then what the sampler proposes."""
    family = get_family(search.family)
    # A sampler of its own for each trial, so that a search that was stopped draws the same.
    search.study.sampler = optuna.samplers.TPESampler(
        seed=(search.seed + number) % 2**32, n_startup_trials=5
    )
    if number == 0 and not search.study.get_trials(states=(TrialState.WAITING,)):
        search.study.enqueue_trial({name: family.defaults[name] for name in family.space})
    return search.study.ask(distributions(search.family))


def _try_next(search: Search, fit: Callable[[optuna.Trial], Any], train: Part, val: Part) -> Trial:
    started = time.perf_counter()
    number = len(search.trials)
    asked = _ask(search, number)
    try:
        estimator, params = fit(asked)
    except optuna.TrialPruned:
        seconds = time.perf_counter() - started
        last = _last_reported(search.study.trials[asked.number])
        trial = Trial(number, asked.params, {"val_rmse": last}, "pruned", seconds)
        return _keep(search, asked, trial)
    scores = metrics(train.y, estimator.predict(train.X), prefix="train_")
    scores |= metrics(val.y, estimator.predict(val.X), prefix="val_")
    if all(scores["val_rmse"] < other.metrics["val_rmse"] for other in search.complete):
        search.estimator, search.fitted = estimator, number
    trial = Trial(number, params, scores, "complete", time.perf_counter() - started)
    return _keep(search, asked, trial)


def _keep(search: Search, asked: optuna.Trial, trial: Trial) -> Trial:
    asked.set_user_attr("trial", json.loads(json.dumps(asdict(trial))))
    if trial.state == "pruned":
        search.study.tell(asked, state=TrialState.PRUNED)
    else:
        search.study.tell(asked, trial.metrics["val_rmse"])
    return trial


def _last_reported(trial: FrozenTrial) -> float:
    return trial.intermediate_values[max(trial.intermediate_values)]


def _fit(search: Search, train: Part, val: Part, asked: optuna.Trial) -> tuple[Any, dict[str, Any]]:
    stages = get_family(search.family).stages
    estimator = make_estimator(search.family, asked.params, seed=search.seed)
    fit = partial(estimator.fit, train.X, train.y)
    if stages is None:
        return fit(), asked.params
    size = GROW[type(estimator)](estimator, fit, stages, asked, val)
    return estimator, {**asked.params, stages.parameter: size}


def _grow_forest(
    forest: RandomForestRegressor, fit: Fit, stages: Stages, asked: optuna.Trial, val: Part
) -> int:
    forest.set_params(warm_start=True)
    for stage, size in enumerate(range(stages.step, stages.end + 1, stages.step)):
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


def describe_params(search: Search) -> pd.DataFrame:
    """One row a hyperparameter: the shipped value and the one that won."""
    shipped = get_family(search.family).defaults
    best = search.best.params
    return pd.DataFrame({"shipped": pd.Series(shipped), "won": pd.Series(best)}, index=list(best))
