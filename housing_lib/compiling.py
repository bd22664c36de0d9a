"""A fitted model to arrays: what is taken from it, and the proof that they are the model."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
from scipy.spatial import KDTree
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor

from housing_lib import neighbours, places
from housing_lib.arrays import flatten, restore
from housing_lib.compiled import (
    Compiled,
    CompileError,
    Error,
    Estimator,
    Linear,
    Member,
    refuse_difference,
)
from housing_lib.compiled_features import Around, Known, Own, Space
from housing_lib.contract import CONTRACT, COVERAGE, FEATURES, Floats
from housing_lib.estimators import LinearStart, RankNetwork
from housing_lib.features import ROTATIONS_DEGREES
from housing_lib.forests import Forest, Mean, from_boosters, from_histogram_boosting, from_trees
from housing_lib.model import DISTANCE_COLUMN, FAR_COLUMNS
from housing_lib.networks import Layer, Networks
from housing_lib.searching import Search
from housing_lib.shallow import DEEPEST

GOLDEN_ROWS = 64
SAME_KM = 1e-6
BUCKET = 84  # points that are measured side by side: with 16 boxes in two levels 21,504
FAN = 16  # boxes that are measured side by side
ABREAST = 8  # numbers that a processor works on at a time


def compile_model(model: Any, districts: Floats) -> Compiled:
    """A fitted model as arrays; `prove` says whether they are the model.

    Parameters
    ----------
    model
        A `DistrictModel` or a `BlendedModel`, with or without a `CalibratedModel` around it.
    districts
        The districts of its data, shape (rows, 8), among them all that it learned from.

    Raises
    ------
    CompileError
        If the model is of a kind that cannot become arrays, or learned from other districts.
    """
    inner = getattr(model, "model_", model)
    golden = synthetic_districts(districts, rows=GOLDEN_ROWS, seed=0)
    steps = _steps(getattr(inner, "models_", [inner])[0])
    engineer = dict(steps["engineer"].transformer_list)
    made = Compiled(
        medians=steps["impute"].statistics_,
        own=_own(),
        around=_around(engineer["around"]),
        mean=steps["scale"].mean_,
        scale=steps["scale"].scale_,
        members=_members(inner),
        far_columns=np.asarray(FAR_COLUMNS, dtype="i8"),
        distance_column=DISTANCE_COLUMN,
        error=_error(model),
        districts=_learned_from(engineer["around"], steps["impute"].statistics_, districts),
        golden=golden,
        expected=own_answers(model, golden),
    )
    # As it comes back from a file, so that the same code is compiled for both.
    return cast("Compiled", restore(Compiled, flatten(made)))


def prove(compiled: Compiled, model: Any, districts: Floats) -> None:
    """Prove that both say the same of these districts, together and some one by one.

    Raises
    ------
    CompileError
        If an answer differs by more than `compiled.TOLERANCE`.
    """
    rows = f"{len(districts):,} districts"
    with ThreadPoolExecutor() as pool:
        own = pool.submit(own_answers, model, districts)
        found, expected = compiled.answer(districts).table(), own.result()
    refuse_difference(found, expected, rows)
    few = slice(None, None, max(1, len(districts) // 100))
    alone = [compiled.answer(row[None]).table() for row in districts[few]]
    refuse_difference(np.vstack(alone), expected[few], f"some of {rows} one by one")


def warm_up() -> None:
    """Turn the functions of compiled models into machine code, so that no first caller waits.

    Raises
    ------
    DataError
        If the bundled file is not the one that was committed.
    """
    from housing_lib import data, families

    known = data.acquire().head(300)
    districts = known[list(FEATURES)].to_numpy()
    # One small model for each kind of trees that is walked by code of its own.
    kinds: list[tuple[str, dict[str, Any]]] = [
        (families.CHAMPION, {"n_estimators": 8, "max_depth": 3}),
        (families.CHAMPION, {"n_estimators": 8, "max_depth": 2 * DEEPEST}),
        ("gradient_boosting", {"max_iter": 8}),
        ("random_forest", {"n_estimators": 8}),
    ]
    for family, params in kinds:
        model = families.make_model(family, params).fit(known, known[data.TARGET].to_numpy())
        made = compile_model(model, districts)
        made.answer(districts)
        made.answer(districts[:1])


def own_answers(model: Any, districts: Floats) -> Floats:
    """What a model itself says: prices and bounds, shape (rows, 3)."""
    if hasattr(model, "predict_both"):
        return np.column_stack(model.predict_both(districts, COVERAGE))
    unknown = np.full(len(districts), np.nan)
    return np.column_stack([np.asarray(model.predict(districts), dtype="f8"), unknown, unknown])


def synthetic_districts(districts: Floats, *, rows: int, seed: int) -> Floats:
    """Districts as nobody saw them: mixtures of real ones, any value in range, missing values."""
    random = np.random.default_rng(seed)
    first, second = districts[random.integers(0, len(districts), (2, rows))]
    share = random.random((rows, 1))
    mixed = share * first + (1 - share) * second
    low, high = np.array([[CONTRACT[name].low, CONTRACT[name].high] for name in FEATURES]).T
    anywhere = low + (high - low) * random.random((rows, len(FEATURES)))
    made = np.where(random.random(mixed.shape) < 0.1, anywhere, mixed)
    return np.where(random.random(mixed.shape) < 0.05, np.nan, made)


def _steps(inner: Any) -> Any:
    known = ["columns", "impute", "engineer", "scale"]
    steps = getattr(getattr(inner, "preprocessing_", None), "named_steps", {})
    if list(steps) != known:
        raise CompileError(
            f"found a {type(inner).__name__} that prepares districts by "
            f"{', '.join(steps) or 'nothing'}; expected {', '.join(known)}. Nothing was changed."
        )
    return steps


def _own() -> Own:
    coast = places.places_km(*places.coast_points().T)
    return Own(
        cities=np.array(list(places.CITIES.values())),
        angles=np.deg2rad(ROTATIONS_DEGREES),
        coast=_search(coast),
        coast_points=len(coast),
        radius_km=places.EARTH_RADIUS_KM,
    )


def _around(features: Any) -> Around:
    known = Known(
        counts=np.asarray(neighbours.COUNTS, dtype="i8"),
        few=neighbours.FEW,
        many=neighbours.MANY,
        kinds=np.ascontiguousarray(features.kinds_),
        incomes=features.incomes_,
        prices=features.prices_,
    )
    spaces = tuple(_space(name, tree.data) for name, tree in features._trees.items())
    return Around(known, spaces, features.mean_, features.spread_, _distances(features))


def _space(name: str, points: Any) -> Space:
    return Space(
        search=_search(np.asarray(points, dtype="f8")),
        kilometres=neighbours.SPACES[name],
        softening=neighbours.SOFTENING[name],
        penalties=np.array(neighbours.PENALTIES[name], dtype="f8"),
    )


def _distances(known: Any) -> Any:
    names = known.get_feature_names_out()
    return np.flatnonzero(["LogDistance" in name for name in names]) - len(names)


def _learned_from(around: Any, medians: Floats, districts: Floats) -> Floats:
    """The training districts as they came, in the order of the neighbour features."""
    complete = np.where(np.isfinite(districts), districts, medians)
    points = places.places_km(complete[:, 6], complete[:, 7])
    candidates = KDTree(np.hstack([points, around._kinds(complete)]))
    distances, rows = candidates.query(np.hstack([around.places_, around.kinds_]))
    if distances.max() > SAME_KM:
        raise CompileError(
            f"{(distances > SAME_KM).sum():,} of {len(rows):,} districts that the model learned "
            "from are not among the data that it is said to be made of. Nothing was changed."
        )
    return np.ascontiguousarray(districts[rows])


def _members(inner: Any) -> tuple[Member, ...]:
    weights = getattr(inner, "weights", [1.0])
    return tuple(
        Member(
            weight=float(weight),
            start=_start(one),
            near=_estimator(one.near_),
            networks=_networks(one),
            network_share=_network_share(one),
            far=_estimator(one.far_),
            trust=float(one.trust),
            reach_km=float(one.reach_km),
            sharpness=float(one.sharpness),
        )
        for weight, one in zip(weights, getattr(inner, "models_", [inner]), strict=True)
    )


def _error(model: Any) -> Error | None:
    if not hasattr(model, "error_"):
        return None
    from housing_lib.intervals import COVERAGES, SMALLEST_ERROR

    factor = float(np.interp(COVERAGE, COVERAGES, model.quantiles_))
    return Error(from_boosters([model.error_]), SMALLEST_ERROR, factor)


def _estimator(estimator: Any) -> Estimator:
    kind = type(estimator).__name__
    if kind == "VotingRegressor":
        return _mean(_but_networks(estimator))
    if kind == "XGBRegressor":
        return from_boosters([estimator])
    if kind == "HistGradientBoostingRegressor":
        return from_histogram_boosting(estimator)
    if isinstance(estimator, RandomForestRegressor | ExtraTreesRegressor):
        return from_trees(estimator.estimators_)
    if isinstance(estimator, DecisionTreeRegressor):
        return from_trees([estimator])
    if hasattr(estimator, "coef_"):
        return _linear(estimator)
    raise CompileError(f"a {kind} cannot become arrays. Nothing was changed.")


def _but_networks(mean: Any) -> list[Any]:
    """What counts in a mean beside its networks, whose share is another number."""
    weights = mean.weights or [1.0] * len(mean.estimators_)
    are_networks = [isinstance(one, RankNetwork) for one in mean.estimators_]
    counts = set(zip(are_networks, weights, strict=True))
    if len(counts) > len(set(are_networks)):
        raise CompileError(
            f"a mean in which estimators of one kind count {weights} cannot become arrays; "
            "expected equal weights. Nothing was changed."
        )
    return [one for one in mean.estimators_ if not isinstance(one, RankNetwork)]


def _mean(estimators: list[Any]) -> Estimator:
    doubles = any(isinstance(one, LinearStart) for one in estimators)
    inner = [getattr(one, "estimator_", one) for one in estimators]
    if all(type(one).__name__ == "XGBRegressor" for one in inner):
        return from_boosters(inner, doubles=doubles)
    forests = [_estimator(one) for one in inner]
    if not all(isinstance(one, Forest) for one in forests):
        raise CompileError(
            "a mean of other than forests cannot become arrays. Nothing was changed."
        )
    return Mean(cast("tuple[Forest, ...]", tuple(forests)), doubles)


def _start(model: Any) -> Linear | None:
    """The line that the estimators together start from; `_mean` takes what they add to it."""
    both = zip(model.near_weights, model.near_estimators, strict=True)
    lines = [(share, _linear(one.line_)) for share, one in both if isinstance(one, LinearStart)]
    if not lines:
        return None
    weights = np.sum([share * line.weights for share, line in lines], axis=0)
    return Linear(weights, sum(share * line.start for share, line in lines))


def _networks(model: Any) -> Networks | None:
    found = [one.arrays for one in model.near_estimators if isinstance(one, RankNetwork)]
    if not found:
        return None
    joined = {
        name: _side_by_side([getattr(one, name) for one in found])
        for name in ("first", "second", "last")
    }
    return Networks(found[0].knots, found[0].scores, **joined)


def _side_by_side(layers: Sequence[Layer]) -> Layer:
    """One layer of several networks of the same shape."""
    weights = np.concatenate([one.weights for one in layers])
    return Layer(weights, np.concatenate([one.starts for one in layers]))


def _network_share(model: Any) -> float:
    both = zip(model.near_weights, model.near_estimators, strict=True)
    return float(sum(share for share, one in both if isinstance(one, RankNetwork)))


def _linear(estimator: Any) -> Linear:
    weights = np.ascontiguousarray(estimator.coef_, dtype="f8")
    return Linear(weights, float(estimator.intercept_))


def _search(points: Floats) -> Search:
    """The points in buckets, and the boxes of the tree whose leaves they are."""
    levels = _levels(points)
    members = levels[-1]
    size = -(-max(map(len, members)) // ABREAST) * ABREAST
    held = np.full((len(members), points.shape[1], size), np.inf, dtype="f4")
    rows = np.full((len(members), size), -1, dtype="i4")
    for bucket, own in enumerate(members):
        held[bucket, :, : len(own)], rows[bucket, : len(own)] = points[own].T, own
    return Search(held, rows, np.concatenate([_boxes(points, level) for level in levels]))


def _levels(points: Floats) -> list[list[Any]]:
    """The rows in each node of the tree, level by level below the root, the buckets last."""
    below = 1  # buckets below each child of the root
    while below * FAN * BUCKET < len(points):
        below *= FAN
    parts = -(-len(points) // (BUCKET * below))
    levels = [list(_halves(points, np.arange(len(points)), parts))]
    while len(levels[-1]) < parts * below:
        levels.append([own for rows in levels[-1] for own in _halves(points, rows, FAN)])
    return levels


def _boxes(points: Floats, members: Sequence[Any]) -> Floats:
    """The boxes around sets of points, by their parents in a full level of the tree."""
    full = FAN
    while full < len(members):
        full *= FAN
    boxes = np.full((2, points.shape[1], full), np.inf, dtype="f4")
    for side, end in enumerate((np.min, np.max)):
        boxes[side, :, : len(members)] = np.transpose([end(points[own], axis=0) for own in members])
    return np.ascontiguousarray(boxes.reshape(2, -1, full // FAN, FAN).transpose(2, 0, 1, 3))


def _halves(points: Floats, rows: Any, buckets: int) -> Iterator[Any]:
    """The rows of each bucket, cut across the side on which they spread most."""
    if buckets == 1:
        yield rows
        return
    widest = np.argmax(points[rows].std(axis=0))
    ordered = rows[np.argsort(points[rows, widest], kind="stable")]
    fewer = buckets // 2
    cut = len(rows) * fewer // buckets
    yield from _halves(points, ordered[:cut], fewer)
    yield from _halves(points, ordered[cut:], buckets - fewer)
