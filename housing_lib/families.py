"""The eight model families: estimator, search space and defaults, as data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from housing_lib.errors import HousingError
from housing_lib.settings import get_settings

if TYPE_CHECKING:
    from housing_lib.model import DistrictModel


class FamilyError(HousingError):
    """A name that is no family's, or parameters that a family does not take."""


@dataclass(frozen=True)
class Range:
    """The values between which a hyperparameter is searched, whole numbers if both ends are.

    With `log`, the search looks at factors rather than differences.
    """

    low: float
    high: float
    log: bool = False
    step: int | None = None


@dataclass(frozen=True)
class Stages:
    """How a family grows: the parameter that counts, where it ends, and how often it is judged.

    After every `step` a trial of random forest or XGBoost is dropped if it is worse than
    the median of those before; gradient boosting does not report. With `patience`, growing
    stops once that many more brought nothing better.
    """

    parameter: str
    end: int
    step: int
    patience: int | None = None

    def shortened(self, growth: float) -> "Stages":
        """The stages of a family that may grow to a share `growth` of its size."""
        end = max(round(self.end * growth), 1)
        return replace(self, end=end, step=min(self.step, end))


@dataclass(frozen=True)
class Family:
    """One model family: where its estimator's class is, and where to search.

    The class is named rather than imported, so that asking which families there
    are takes no time. `far` are the hyperparameters of the estimator for districts
    without neighbours, where they differ, `trust` is how much the other one counts
    among neighbours, and `repeats` with how many seeds that one is fitted. Every
    other of these starts from a ridge regression of strength `start`, if there is
    one; so many `networks` answer beside them, each with half of the weight;
    `thinned` is the weight of districts that are heard again with half of their
    neighbours.
    """

    title: str
    estimator: str
    space: Mapping[str, Range]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    stages: Stages | None = None
    linear: bool = False
    far: Mapping[str, Any] | None = None
    trust: float = 1.0
    repeats: int = 1
    start: float | None = None
    networks: int = 0
    thinned: float = 0.0


ALPHA = Range(1e-5, 1e1, log=True)

FAMILIES: dict[str, Family] = {
    "linear_regression": Family(
        title="Linear regression",
        estimator="housing_lib.estimators.PercentileRegression",
        space={"percentile": Range(10, 100, step=5)},
        defaults={"percentile": 100},
        linear=True,
    ),
    "lasso": Family(
        title="Lasso",
        estimator="sklearn.linear_model.Lasso",
        space={"alpha": ALPHA},
        defaults={"alpha": 1e-4},
        fixed={"precompute": True, "max_iter": 50_000, "tol": 1e-3},
        linear=True,
    ),
    "ridge": Family(
        title="Ridge",
        estimator="sklearn.linear_model.Ridge",
        space={"alpha": Range(1e-3, 1e4, log=True)},
        defaults={"alpha": 1.0},
        linear=True,
    ),
    "elastic_net": Family(
        title="Elastic net",
        estimator="sklearn.linear_model.ElasticNet",
        space={"alpha": ALPHA, "l1_ratio": Range(0.01, 1.0)},
        defaults={"alpha": 1e-4, "l1_ratio": 0.5},
        fixed={"precompute": True, "max_iter": 50_000, "tol": 1e-3},
        linear=True,
    ),
    "decision_tree": Family(
        title="Decision tree",
        estimator="housing_lib.estimators.RoundedTree",
        space={
            "max_depth": Range(4, 24),
            "min_samples_leaf": Range(1, 100, log=True),
            "min_samples_split": Range(2, 100, log=True),
            "max_features": Range(0.2, 1.0),
            "ccp_alpha": Range(1e-6, 1e-2, log=True),
        },
        defaults={
            "max_depth": 14,
            "min_samples_leaf": 12,
            "min_samples_split": 24,
            "max_features": 1.0,
            "ccp_alpha": 1e-4,
        },
    ),
    "random_forest": Family(
        title="Random forest",
        estimator="housing_lib.estimators.RoundedForest",
        space={
            # Narrow looks at few districts a tree are as good as wide ones, and far quicker.
            "max_features": Range(0.03, 0.12),
            "min_samples_leaf": Range(1, 10, log=True),
            "max_samples": Range(0.4, 0.8),
            "max_depth": Range(10, 40),
        },
        defaults={
            "max_features": 0.06,
            "min_samples_leaf": 2,
            "max_samples": 0.6,
            "max_depth": 30,
            "n_estimators": 100,
        },
        stages=Stages("n_estimators", end=100, step=25),
    ),
    "gradient_boosting": Family(
        title="Gradient boosting",
        # The histogram variant: the exact one takes about ten times as long for a worse score.
        estimator="sklearn.ensemble.HistGradientBoostingRegressor",
        space={
            "learning_rate": Range(0.03, 0.15, log=True),
            "max_leaf_nodes": Range(15, 63, log=True),
            "min_samples_leaf": Range(5, 80, log=True),
            "l2_regularization": Range(1e-3, 1e2, log=True),
            "max_features": Range(0.05, 0.5),
        },
        defaults={
            "learning_rate": 0.04,
            "max_leaf_nodes": 40,
            "min_samples_leaf": 20,
            "l2_regularization": 1.0,
            "max_features": 0.1,
            "max_iter": 700,
        },
        fixed={"early_stopping": False, "max_bins": 64},
        stages=Stages("max_iter", end=1000, step=1000, patience=30),
    ),
    "xgboost": Family(
        title="XGBoost",
        estimator="xgboost.XGBRegressor",
        space={
            "learning_rate": Range(0.03, 0.12, log=True),
            "max_depth": Range(5, 10),
            "min_child_weight": Range(2.0, 30.0, log=True),
            "subsample": Range(0.5, 1.0),
            "colsample_bytree": Range(0.1, 0.6),
            "reg_lambda": Range(1e-1, 1e2, log=True),
            "reg_alpha": Range(1e-4, 1e1, log=True),
        },
        defaults={
            "learning_rate": 0.045,
            "max_depth": 7,
            "min_child_weight": 5.0,
            "subsample": 0.8,
            "colsample_bytree": 0.25,
            "reg_lambda": 10.0,
            "reg_alpha": 1e-3,
            "n_estimators": 600,
        },
        fixed={"tree_method": "hist", "max_bin": 32},
        stages=Stages("n_estimators", end=900, step=50, patience=40),
        far={
            "learning_rate": 0.04,
            "max_depth": 6,
            "min_child_weight": 10.0,
            "subsample": 0.7,
            "colsample_bytree": 0.4,
            "n_estimators": 600,
        },
        trust=0.9,
        repeats=2,
        start=300.0,
        networks=2,
        thinned=0.3,
    ),
}

# What the project ships as its best model, with its defaults.
CHAMPION = "xgboost"
# The name of the candidate that is made of several families.
BLEND = "blend"


def get_family(name: str) -> Family:
    """The family of that name.

    Raises
    ------
    FamilyError
        If there is none; the nearest right name is given.
    """
    if name not in FAMILIES:
        near = get_close_matches(name, FAMILIES, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise FamilyError(
            f"there is no family '{name}'.{hint}\n"
            f"The families are: {', '.join(FAMILIES)}. Nothing was run."
        )
    return FAMILIES[name]


def linear() -> list[str]:
    """The names of the families whose predictions are linear in the features."""
    return [name for name, family in FAMILIES.items() if family.linear]


def title(name: str) -> str:
    """The name of a candidate as a person reads it; any other name stays as it is."""
    if name in FAMILIES:
        return FAMILIES[name].title
    return "Blend" if name == BLEND else name


def left_out(names: Iterable[str]) -> str:
    """The families that are not among `names`, as a text; empty if all are."""
    absent = [family.title for name, family in FAMILIES.items() if name not in set(names)]
    return f"not among them: {', '.join(absent)}" if absent else ""


def make_estimator(
    name: str, params: Mapping[str, Any] | None = None, *, seed: int | None = None, n_jobs: int = 1
) -> Any:
    """An estimator of the model matrix, not yet fitted; without `params` the shipped ones.

    Raises
    ------
    FamilyError
        If there is no such family, or it does not take a parameter.
    """
    family = get_family(name)
    make = _class_of(family)
    chosen = {**family.fixed, **(family.defaults if params is None else params)}
    if family.stages:
        chosen.setdefault(family.stages.parameter, family.stages.end)
    allowed = make().get_params()
    unknown = sorted(set(chosen) - set(allowed))
    if unknown:
        raise FamilyError(
            f"{name} does not take {', '.join(unknown)}. It takes: {', '.join(allowed)}."
        )
    common = {"random_state": get_settings().seed if seed is None else seed, "n_jobs": n_jobs}
    chosen |= {key: value for key, value in common.items() if key in allowed}
    return make(**chosen)


def _class_of(family: Family) -> Any:
    module, _, name = family.estimator.rpartition(".")
    return getattr(import_module(module), name)


def make_model(
    name: str,
    params: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    n_jobs: int = 1,
    repeats: int | None = None,
    growth: float = 1.0,
) -> "DistrictModel":
    """A model from raw districts to prices in 100,000 USD, not yet fitted.

    Preprocessing is its first part, so that a model can never be served with
    the preprocessing of another.

    Parameters
    ----------
    repeats
        With how many seeds the estimator among neighbours is fitted, to answer
        with the mean; by default the family's number. With 1 it stands alone, as
        a search fits it: without a start, networks and thinned districts.
    growth
        The share of its size to which all but the estimator itself grows, as for
        `tuning.tune`: networks hear so many epochs, and what answers far from known
        districts has so many trees, in steps that are as much longer.

    Raises
    ------
    FamilyError
        If there is no such family, or it does not take a parameter.
    """
    from housing_lib.model import DistrictModel

    family = get_family(name)
    seed = get_settings().seed if seed is None else seed
    count = repeats or family.repeats
    threads = max(n_jobs // count, 1)
    near = [
        (f"seed{seed + one}", make_estimator(name, params, seed=seed + one, n_jobs=threads))
        for one in range(count)
    ]
    far = family.far and make_estimator(
        name, _shortened(family.far, growth), seed=seed, n_jobs=n_jobs
    )
    if len(near) == 1:
        return DistrictModel(near[0][1], far, trust=family.trust)
    mean = _mean_of(near, family, seed=seed, n_jobs=n_jobs, growth=growth)
    return DistrictModel(mean, far, thinned=family.thinned, trust=family.trust)


def _shortened(boosting: Mapping[str, Any], growth: float) -> dict[str, Any]:
    """The hyperparameters of a booster of fewer trees in longer steps."""
    trees, rate = boosting["n_estimators"], boosting["learning_rate"]
    return {
        **boosting,
        "n_estimators": max(round(trees * growth), 1),
        "learning_rate": rate / growth,
    }


def _mean_of(
    near: list[tuple[str, Any]], family: Family, *, seed: int, n_jobs: int, growth: float
) -> Any:
    from sklearn.ensemble import VotingRegressor

    from housing_lib.estimators import EPOCHS, LinearStart, RankNetwork

    if family.start is not None:  # half of them, because the two kinds err in different districts
        near[1::2] = [(name, LinearStart(one, alpha=family.start)) for name, one in near[1::2]]
    epochs = max(round(EPOCHS * growth), 1)
    networks = [
        (f"network{one}", RankNetwork(epochs=epochs, random_state=seed + one))
        for one in range(family.networks)
    ]
    weights = [1.0] * len(near) + [0.5] * len(networks)
    return VotingRegressor([*near, *networks], weights=weights, n_jobs=n_jobs)
