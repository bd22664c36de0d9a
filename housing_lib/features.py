"""Raw districts to a model matrix, as scikit-learn transformers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler

from housing_lib.data import FEATURES, PARTS, TARGET, DataError, Floats, row_ids
from housing_lib.neighbours import NeighbourFeatures, owners_of
from housing_lib.parts import Part
from housing_lib.places import CITIES, distance_km, to_coast

ROTATIONS_DEGREES = (15, 30, 45, 60, 75)
# What a feature is about, by its name: the first pattern that is found counts.
KINDS = {
    "LogDistance": "how near the neighbours are",
    "^Place": "neighbours' prices, near by place",
    "^Kind": "neighbours' prices, near by place and kind",
    "^Around": "neighbours' incomes and homes",
    "Km$|^AlongCoast": "distances to cities and the coast",
    "tude$|^Rotated": "coordinates, also turned",
    "": "the district's own columns and ratios",
}


class DistrictColumns(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """The eight columns of a district as float64, whatever they come in.

    A table may hold them in any order and among others; an array must hold
    exactly these eight, in the contract's order.
    """

    def fit(self, X: pd.DataFrame | Floats, y: Any = None) -> Self:
        """The transformer itself; there is nothing to learn.

        Raises
        ------
        DataError
            If columns are missing from a table, or an array has not eight.
        """
        self.n_features_in_ = self.transform(X).shape[1]
        self.feature_names_in_ = np.asarray(FEATURES, dtype=object)
        return self

    def transform(self, X: pd.DataFrame | Floats) -> Floats:
        """The districts, shape (rows, 8); infinite values become missing ones.

        Raises
        ------
        DataError
            If columns are missing from a table, or an array has not eight.
        """
        if isinstance(X, pd.DataFrame):
            missing = [name for name in FEATURES if name not in X.columns]
            if missing:
                raise DataError(f"missing columns: {', '.join(missing)}; expected {FEATURES}.")
            X = X[list(FEATURES)]
        values = np.asarray(X, dtype="float64")
        if values.ndim != 2 or values.shape[1] != len(FEATURES):
            raise DataError(f"found an array of shape {values.shape}; expected (rows, 8).")
        return np.where(np.isfinite(values), values, np.nan)


class DistrictFeatures(TransformerMixin, BaseEstimator):
    """What an appraiser would compute from a district's eight complete columns.

    Counts and averages are taken in logarithms, because a few districts of
    group quarters hold averages hundreds of times the usual. Rotated
    coordinates let a tree cut along the coast, which runs from north-west to
    south-east; distances to the coast and the large cities carry over to places
    never seen.
    """

    def fit(self, X: Floats, y: Any = None) -> Self:
        """The transformer itself; there is nothing to learn."""
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X: Floats) -> Floats:
        """The features, shape (rows, features)."""
        income, age, rooms, bedrooms, people, occupants, latitude, longitude = np.asarray(X).T
        columns = [
            income,
            age,
            *_logarithms(rooms, bedrooms, people, occupants),
            _ratio(bedrooms, rooms),
            *_logarithms(_ratio(occupants, rooms)),
            _ratio(income, rooms),
            np.log1p(_ratio(people, occupants)),
            latitude,
            longitude,
            *_rotated(latitude, longitude),
            *_city_distances(latitude, longitude),
            *_by_the_coast(latitude, longitude),
        ]
        return np.column_stack(columns)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """The name of each feature."""
        names = [
            "MedInc",
            "HouseAge",
            *(f"Log{name}" for name in ("AveRooms", "AveBedrms", "Population", "AveOccup")),
            "BedroomsPerRoom",
            "LogPeoplePerRoom",
            "IncomePerRoom",
            "LogHouseholds",
            "Latitude",
            "Longitude",
            *(f"Rotated{degrees}" for degrees in ROTATIONS_DEGREES),
            *(f"Log{city}Km" for city in CITIES),
            "LogNearestCityKm",
            "LogCoastKm",
            "AlongCoast",
        ]
        return np.asarray(names, dtype=object)


def _logarithms(*columns: Floats) -> list[Floats]:
    return [np.log1p(np.maximum(column, 0)) for column in columns]


def _ratio(part: Floats, whole: Floats) -> Floats:
    return part / np.maximum(whole, 0.1)


def _rotated(latitude: Floats, longitude: Floats) -> list[Floats]:
    angles = np.deg2rad(ROTATIONS_DEGREES)
    return [np.cos(angle) * longitude + np.sin(angle) * latitude for angle in angles]


def _city_distances(latitude: Floats, longitude: Floats) -> list[Floats]:
    distances = [distance_km(latitude, longitude, *city) for city in CITIES.values()]
    return _logarithms(*distances, np.minimum.reduce(distances))


def _by_the_coast(latitude: Floats, longitude: Floats) -> list[Floats]:
    distance, along = to_coast(latitude, longitude)
    return [*_logarithms(distance), along]


def make_preprocessing() -> Pipeline:
    """The steps from raw districts to a complete, scaled matrix, not yet fitted.

    It learns from prices too, so it has to be fitted with them; `fit_transform`
    gives the matrix to train on, in which no district's price tells of itself.
    """
    own_and_around = [("own", DistrictFeatures()), ("around", NeighbourFeatures())]
    engineered = [("engineer", FeatureUnion(own_and_around)), ("scale", StandardScaler())]
    return Pipeline([*make_columns().steps, *engineered])


@dataclass(frozen=True)
class Prepared:
    """Preprocessing that was fitted on some districts, and their matrix to train on."""

    preprocessing: Pipeline
    matrix: Floats


def prepare(X: pd.DataFrame | Floats, prices: Floats) -> Prepared:
    """What every model of the same training districts begins with.

    Raises
    ------
    DataError
        If columns are missing, or there are fewer than two districts.
    """
    preprocessing = make_preprocessing()
    return Prepared(preprocessing, preprocessing.fit_transform(X, prices))


def prepared_before(train: Part) -> Prepared:
    """What `prepare` gave for the training part, without looking around in each district again."""
    preprocessing = make_preprocessing()
    preprocessing[:-1].fit(train.districts, train.y)
    scale = preprocessing["scale"]
    scale.mean_, scale.scale_, scale.var_ = train.mean, train.spread, train.spread**2
    scale.n_features_in_, scale.n_samples_seen_ = train.X.shape[1], len(train.y)
    return Prepared(preprocessing, train.X)


def thinned_matrix(preprocessing: Pipeline, X: pd.DataFrame | Floats, y: Floats) -> Floats:
    """The matrix of training districts that know only a random half of their neighbours.

    `preprocessing` is fitted on all of them and gives the scale. Trained on both
    matrices, a model hears each district twice in different company, and leans
    less on a single neighbour. The halves are the same for every estimator, whatever
    its seed.

    Raises
    ------
    DataError
        If columns are missing, or a half has fewer than two districts.
    """
    engineer, scale = preprocessing[:-1], preprocessing[-1]
    rows = preprocessing["columns"].transform(X)
    matrix = np.empty((len(rows), scale.n_features_in_))
    owners = owners_of(rows)
    for half, _ in KFold(2, shuffle=True, random_state=0).split(np.unique(owners)):
        known = np.isin(owners, half)
        fitted = clone(engineer).fit(rows[known], y[known])
        matrix[~known] = scale.transform(fitted.transform(rows[~known]))
    return matrix


def make_columns() -> Pipeline:
    """The steps from raw districts to their eight columns without gaps, not yet fitted."""
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    return Pipeline([("columns", DistrictColumns()), ("impute", imputer)])


def preprocess(districts: pd.DataFrame, membership: npt.NDArray[np.str_]) -> dict[str, Part]:
    """The three parts with their model matrices; what is learned, is learned on training rows.

    Parameters
    ----------
    membership
        The part of each district, as `data.split` gives it.

    Raises
    ------
    DataError
        If there are fewer than two training districts.
    """
    rows = {name: districts[membership == name].reset_index(drop=True) for name in PARTS}
    prices = {name: part[TARGET].to_numpy() for name, part in rows.items()}
    preprocessing = make_preprocessing()
    matrices = {"train": preprocessing.fit_transform(rows["train"], prices["train"])}
    matrices |= {name: preprocessing.transform(rows[name]) for name in PARTS if name != "train"}
    scale = preprocessing["scale"]
    return {
        name: Part(matrices[name], prices[name], row_ids(part), scale.mean_, scale.scale_, part)
        for name, part in rows.items()
    }


def balance(parts: Mapping[str, Part]) -> pd.DataFrame:
    """The mean of each column in each part, and how far apart they are, in standard deviations."""
    means = pd.DataFrame({name: part.districts.mean() for name, part in parts.items()})
    spread = parts["train"].districts.std()
    return means.assign(distance=(means.max(axis=1) - means.min(axis=1)) / spread)


def rank_correlations(part: Part, names: Sequence[str]) -> pd.Series:
    """Spearman's rank correlation of each feature with the price, strongest first."""
    table = pd.DataFrame(part.X, columns=list(names))
    found = table.corrwith(pd.Series(part.y), method="spearman")
    return found.sort_values(key=np.abs, ascending=False)


def kind_of(name: str) -> str:
    """What a feature is about, in words.

    Examples
    --------
    >>> kind_of("LogSanDiegoKm")
    'distances to cities and the coast'
    """
    return next(kind for pattern, kind in KINDS.items() if re.search(pattern, name))


def strongest_by_kind(ranks: pd.Series) -> pd.DataFrame:
    """One row a kind of feature: how many, and which goes with the price most closely.

    Parameters
    ----------
    ranks
        As `rank_correlations` gives them.
    """
    kinds = ranks.index.map(kind_of)
    table = pd.DataFrame({"strongest": ranks.index, "rank correlation": ranks.to_numpy()})
    first = table.groupby(kinds, sort=False).first()
    first.insert(0, "features", table.groupby(kinds, sort=False).size())
    return first


def matrix_summary(parts: Mapping[str, Part], names: Sequence[str]) -> pd.DataFrame:
    """One row a kind of feature: what is farthest from a mean of 0 and a spread of 1, by part.

    `largest` is the largest size of a value.
    """
    kinds = pd.Index([kind_of(name) for name in names])
    columns = {}
    for name, part in parts.items():
        columns[f"{name}: mean"] = _farthest(part.X.mean(axis=0), 0, kinds)
        columns[f"{name}: spread"] = _farthest(part.X.std(axis=0), 1, kinds)
        columns[f"{name}: largest"] = _farthest(np.abs(part.X).max(axis=0), 0, kinds)
    return pd.DataFrame(columns).round(2) + 0.0  # no minus before a zero


def _farthest(values: Floats, usual: float, kinds: pd.Index) -> pd.Series:
    groups = pd.Series(values).groupby(kinds, sort=False)
    return groups.agg(lambda group: group.iloc[int((group - usual).abs().argmax())])


def feature_names() -> list[str]:
    """The names of the columns of the model matrix."""
    return [*own_names(), *NeighbourFeatures().get_feature_names_out()]


def own_names() -> list[str]:
    """The names of the first columns of the matrix: what a district says of itself."""
    return list(DistrictFeatures().get_feature_names_out())
