"""What a model looks at: permutation importance, its own measure, and contributions."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.inspection import permutation_importance
from xgboost import DMatrix, XGBRegressor

from housing_lib.data import FEATURES, Floats
from housing_lib.estimators import LinearStart, RankNetwork
from housing_lib.model import FAR_COLUMNS
from housing_lib.parts import Part

SHUFFLED = 600  # districts are enough to rank eight columns
SAMPLED = 200  # districts are enough to rank the features by their contributions
_WITH_CONTRIBUTIONS = (XGBRegressor, RankNetwork)


def importances(model: Any, part: Part, *, seed: int, repeats: int = 2) -> pd.Series:
    """The rise of RMSE (100,000 USD) when a column of the district is shuffled.

    Permutation importance (Breiman 2001) over the eight columns that a person
    can supply; it means the same for every family.
    """
    columns = list(FEATURES)
    found = permutation_importance(
        model,
        part.districts[columns],
        part.y,
        scoring="neg_root_mean_squared_error",
        n_repeats=repeats,
        max_samples=min(SHUFFLED, len(part.y)),
        random_state=seed,
    )
    return pd.Series(found.importances_mean, index=columns).sort_values(ascending=False)


def own_importances(model: Any, feature_names: list[str]) -> pd.Series | None:
    """What the estimators among known districts say themselves: impurity, gain or coefficients.

    The mean where several seeds answer together; of one that starts from a line, what
    its trees say; networks say nothing. None if none says anything.
    """
    estimators = [_grown(one) for one in model.near_estimators]
    found = [one for one in map(_own_measure, estimators) if one is not None]
    if not found:
        return None
    series = pd.Series(np.mean(found, axis=0), index=feature_names)
    return series.sort_values(key=np.abs, ascending=False)


def _grown(estimator: Any) -> Any:
    """What learned, without the line that it started from, if it did."""
    return estimator.estimator_ if isinstance(estimator, LinearStart) else estimator


def _own_measure(estimator: Any) -> Floats | None:
    values = getattr(estimator, "coef_", None)
    if values is None:
        values = getattr(estimator, "feature_importances_", None)
    return None if values is None else np.ravel(values)


def importance_views(
    model: Any, part: Part, feature_names: list[str], *, seed: int
) -> dict[str, pd.Series]:
    """What matters to a model: by permutation, and by the model's own measure if it has one."""
    views = {"permutation": importances(model, part, seed=seed)}
    own = own_importances(model, feature_names)
    return views if own is None else {**views, "own": own}


def contributions(model: Any, districts: pd.DataFrame, names: list[str]) -> pd.DataFrame | None:
    """What each feature adds to each price (100,000 USD); the columns add up to the prediction.

    Exact SHAP values of the trees (Lundberg et al. 2020), computed by XGBoost
    itself, and of the lines that some start from; of networks, those of
    `RankNetwork.contributions`. The last column, `base`, is where every price
    starts. None if the champion is not made of XGBoost's trees.

    Raises
    ------
    DataError
        If columns are missing.
    """
    inner = model.model_
    near = getattr(inner, "near_estimators", [None])
    if not all(isinstance(_grown(one), _WITH_CONTRIBUTIONS) for one in near):
        return None
    matrix = inner.transform(districts)
    share = inner.near_share(matrix)[:, None]
    with ThreadPoolExecutor() as pool:  # XGBoost lets go of Python while it explains
        each = list(pool.map(partial(_shap, matrix=matrix), near))
    total = np.average(each, axis=0, weights=inner.near_weights) * share
    total[:, [*FAR_COLUMNS, -1]] += _shap(inner.far_, matrix[:, FAR_COLUMNS]) * (1 - share)
    return pd.DataFrame(total, columns=[*names, "base"])


def mean_contributions(model: Any, part: Part, names: list[str], *, seed: int) -> pd.Series | None:
    """The mean size of each feature's contribution (100,000 USD), largest first.

    Over a random sample of the districts: exact values of all take minutes.
    """
    some = part.districts.sample(min(SAMPLED, len(part.y)), random_state=seed)
    found = contributions(model, some, names)
    if found is None:
        return None
    return found.drop(columns="base").abs().mean().sort_values(ascending=False)


def _shap(estimator: Any, matrix: Floats) -> Floats:
    if isinstance(estimator, RankNetwork):
        return estimator.contributions(matrix)  # type: ignore[no-any-return]
    if isinstance(estimator, LinearStart):
        line = estimator.line_
        # Columns of the matrix have mean 0, so the intercept is where every price starts.
        linear = np.column_stack([matrix * line.coef_, np.full(len(matrix), line.intercept_)])
        return linear + _shap(estimator.estimator_, matrix)
    found: Floats = estimator.get_booster().predict(DMatrix(matrix), pred_contribs=True)
    return found.astype("float64")
