"""One Optuna study of one family: the search for its best hyperparameters."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from housing_lib import compute, keys, studies
from housing_lib.families import get_family, make_estimator
from housing_lib.parts import Part
from housing_lib.processes import cores, one_blas_thread
from housing_lib.settings import get_settings
from housing_lib.trials import (
    Search,
    Trial,
    distributions,
    ended_trials,
    judge_trial,
    keep_trial,
    plain_trial,
    pruner_of,
    sampler_of,
    shipped_parameters,
)

OnTrial = Callable[[Trial], None]


def tune(
    family: str,
    train: Part,
    val: Part,
    *,
    n_trials: int,
    seed: int,
    growth: float = 1.0,
    abreast: int = 1,
    on_trial: Callable[[Trial], None] | None = None,
) -> Search:
    """The search over one family's space for the lowest validation RMSE, `n_trials` in all.

    Trials run one after another, so that a seed means the same numbers. The
    first one tries the shipped parameters; the sampler is TPE (Bergstra et al.
    2011); random forest and XGBoost drop trials worse than the median of those
    before, gradient boosting does not report. Every trial is kept on disk as it ends: a search that
    was stopped goes on where it was, and comes to the same numbers.

    Parameters
    ----------
    growth
        The share of its trees to which a family may grow, for a quick look. Those
        that learn in steps take steps that are as much longer.
    abreast
        How many trials are proposed together, and run side by side on the cluster or
        in processes. Another number is another search, with other trials; where and
        by how many workers they run makes no difference. The cluster also runs
        those that are proposed one by one, so that searches side by side share it.
    on_trial
        Hears each trial in order.

    Raises
    ------
    StudyError
        If trials cannot be kept, or are asked for abreast where others may join.
    FamilyError
        If there is no such family.
    ProcessDiedError
        If the workers of a trial died again and again.
    ClusterError
        If the cluster cannot be reached.

    Notes
    -----
    With `HOUSING_STUDY_URL`, other machines may run trials of the same search at the same
    time. The number of trials stays the total; which they are then depends on who was quick.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if abreast > 1:
        studies.refuse_shared()
    name = study_name(family, train, val, seed=seed, growth=growth, abreast=abreast)
    with studies.alone(name):
        search = Search(family, seed, growth, studies.open_study(name, pruner_of(family, growth)))
        if studies.is_shared():
            _search_together(search, train, val, n_trials, on_trial)
        elif abreast > 1 or get_settings().cluster:
            _search_abreast(search, train, val, n_trials, abreast, on_trial)
        else:
            _search_alone(search, train, val, n_trials, on_trial)
    if search.estimator is None or search.best.number != search.fitted:
        search.estimator = make_estimator(family, search.best.params, seed=seed)
        with one_blas_thread():  # as in the trial
            search.estimator.fit(train.X, train.y)
    return search


def study_name(
    family: str, train: Part, val: Part, *, seed: int, growth: float = 1.0, abreast: int = 1
) -> str:
    """The name of exactly this search: same family, data, seed and growth, same code and packages.

    It is made as the key of a step is, of the code that makes trials: once that or
    packages changed, no trial is taken that was made before.

    Raises
    ------
    FamilyError
        If there is no such family.
    """
    chosen = {"family": get_family(family), "seed": seed, "growth": growth, "abreast": abreast}
    made_of = keys.ingredients(
        notebook=None,
        modules=["tuning"],
        tables={"families.FAMILIES": ""},
        parameters=chosen,
        inputs={"train": _digest(train), "val": _digest(val)},
    )
    return f"{family}-{keys.key_of(made_of)[:12]}"


def _digest(part: Part) -> str:
    return hashlib.sha256(part.X.tobytes() + part.y.tobytes()).hexdigest()


def _search_alone(
    search: Search, train: Part, val: Part, total: int, on_trial: OnTrial | None
) -> None:
    kept = ended_trials(search.study)
    for number in range(total):
        trial = kept[number] if number < len(kept) else _try_next(search, train, val)
        search.trials.append(trial)
        _tell(on_trial, [trial])


def _tell(on_trial: OnTrial | None, trials: list[Trial]) -> None:
    for trial in trials if on_trial else []:
        on_trial(trial)  # type: ignore[misc]


def _search_abreast(
    search: Search, train: Part, val: Part, total: int, abreast: int, on_trial: OnTrial | None
) -> None:
    shared = (search.family, search.seed, search.growth, train, val)
    with compute.crew(shared, jobs=min(abreast, cores())) as work:
        while len(search.trials) < total:
            first = len(search.trials)
            row = ended_trials(search.study)[first:total] or _try_several(
                search, work, min(abreast, total - first)
            )
            search.trials += row
            _tell(on_trial, row)


def _try_several(search: Search, work: compute.Work, count: int) -> list[Trial]:
    """The next trials, proposed together, tried side by side, and kept in order."""
    first = len(search.trials)
    asked = [_ask(search, first + place) for place in range(count)]
    past = search.study.get_trials(states=studies.ENDED)
    found = dict(work(_try_elsewhere, [(one.params, past) for one in asked]))
    row = []
    for place, one in enumerate(asked):
        trial, reported = found[place]
        for stage, error in reported.items():
            one.report(error, stage)
        row.append(keep_trial(search, one, replace(trial, number=first + place)))
    return row


def _try_elsewhere(
    shared: tuple[str, int, float, Part, Part], params: dict[str, Any], past: list[FrozenTrial]
) -> tuple[Trial, dict[int, float]]:
    """A trial and what it reported, by a worker that knows what the trials before it reported."""
    family, seed, growth, train, val = shared
    study = optuna.create_study(pruner=pruner_of(family, growth))
    study.add_trials(past)
    study.enqueue_trial(params)
    asked = study.ask(distributions(family))
    trial, _ = judge_trial(Search(family, seed, growth, study), train, val, asked)
    return trial, study.trials[asked.number].intermediate_values


class _SurplusError(Exception):
    """A trial that others have run in the meantime."""


def _search_together(
    search: Search, train: Part, val: Part, total: int, on_trial: OnTrial | None
) -> None:
    """Run trials until the study has its total, whoever runs them; all end with the same."""
    begin = partial(_begin_together, search, total)
    studies.patiently(begin)
    told: set[int] = set()
    waiting: dict[int, float] = {}
    while len(search.trials) < total:
        ended = studies.patiently(partial(_together, search, train, val, total, waiting))
        _tell(on_trial, [one for one in ended if one.number not in told])
        told |= {one.number for one in ended}
        search.trials = ended if len(ended) == total else []


def _begin_together(search: Search, total: int) -> None:
    known = search.study.user_attrs.get(studies.TOTAL, 0)
    search.study.set_user_attr(studies.TOTAL, max(total, known))
    if not search.study.get_trials(deepcopy=False):
        search.study.enqueue_trial(shipped_parameters(search.family), skip_if_exists=True)


def _together(
    search: Search, train: Part, val: Part, total: int, waiting: dict[int, float]
) -> list[Trial]:
    """The first `total` trials that ended, after running one more if one is wanted."""
    study = search.study
    studies.fail_lost(study)
    living = [one for one in study.get_trials(deepcopy=False) if _counts(one)]
    if len(living) < total:
        study.sampler = sampler_of(search, len(study.get_trials(deepcopy=False)))
        run = partial(_run_together, search, train, val, total)
        studies.run_one(study, run, _SurplusError)
    elif len(ended_trials(study)) < total:
        studies.fail_unheard(study, waiting)
        time.sleep(studies.POLL_S)  # others are at the last ones, and may yet be lost
    return ended_trials(study)[:total]


def _counts(trial: FrozenTrial) -> bool:
    return trial.state in (*studies.ENDED, TrialState.RUNNING)


def _run_together(search: Search, train: Part, val: Part, total: int, asked: optuna.Trial) -> float:
    before = search.study.get_trials(deepcopy=False)[: asked.number]
    if sum(_counts(one) for one in before) >= total:
        raise _SurplusError
    for name, values in distributions(search.family).items():
        _suggest(asked, name, values)
    trial, _ = judge_trial(search, train, val, asked)
    asked.set_user_attr("trial", plain_trial(replace(trial, number=asked.number)))
    if trial.state == "pruned":
        raise optuna.TrialPruned
    return trial.metrics["val_rmse"]


def _suggest(asked: optuna.Trial, name: str, values: BaseDistribution) -> None:
    if isinstance(values, IntDistribution):
        asked.suggest_int(name, values.low, values.high, step=values.step, log=values.log)
    elif isinstance(values, FloatDistribution):
        asked.suggest_float(name, values.low, values.high, step=values.step, log=values.log)


def _ask(search: Search, number: int) -> optuna.Trial:
    """The next trial to run: the shipped parameters first, then what the sampler proposes."""
    search.study.sampler = sampler_of(search, number)
    if number == 0 and not search.study.get_trials(states=(TrialState.WAITING,)):
        search.study.enqueue_trial(shipped_parameters(search.family))
    return search.study.ask(distributions(search.family))


def _try_next(search: Search, train: Part, val: Part) -> Trial:
    number = len(search.trials)
    asked = _ask(search, number)
    trial, estimator = judge_trial(search, train, val, asked)
    trial = replace(trial, number=number)
    if estimator is not None and all(
        trial.metrics["val_rmse"] < other.metrics["val_rmse"] for other in search.complete
    ):
        search.estimator, search.fitted = estimator, number
    return keep_trial(search, asked, trial)
