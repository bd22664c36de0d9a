"""Which types a stored model may hold, and models unpacked by that list alone."""

from typing import Any

from housing_lib.errors import HousingError

# skops loads these beside its own list, and nothing else: no code runs that is not named here.
TRUSTED_TYPES = (
    "housing_lib.estimators.LinearStart",
    "housing_lib.estimators.PercentileRegression",
    "housing_lib.estimators.RankNetwork",
    "housing_lib.estimators.RoundedForest",
    "housing_lib.estimators.RoundedTree",
    "housing_lib.features.DistrictColumns",
    "housing_lib.features.DistrictFeatures",
    "housing_lib.blend.BlendedModel",
    "housing_lib.intervals.CalibratedModel",
    "housing_lib.model.DistrictModel",
    "housing_lib.neighbours.NeighbourFeatures",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBRegressor",
)


class TrustError(HousingError):
    """A model that holds a type whose code nobody allowed to run."""


def trusted_types(model: Any) -> list[str]:
    """The types in a model that skops does not trust by itself; all are on our list.

    Raises
    ------
    TrustError
        If one is not.
    """
    import skops.io

    found = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    unknown = sorted(set(found) - set(TRUSTED_TYPES))
    if unknown:
        raise TrustError(
            f"the model holds {', '.join(unknown)}, which trust.TRUSTED_TYPES does not name. "
            "Add it there if its code may run wherever the model is loaded. Nothing was logged."
        )
    return list(found)


def unpack_model(content: bytes) -> Any:
    """The model in the bytes of a model file, unpacked by our own list of trusted types.

    Raises
    ------
    TrustError
        If it holds another type; no code of it has run then.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.loads(content, trusted=list(TRUSTED_TYPES))
    except UntrustedTypesFoundException as error:
        raise TrustError(
            f"a stored model holds types that trust.TRUSTED_TYPES does not name: {error}. "
            "Nothing was loaded."
        ) from error
