"""Bodies to districts and true prices, or the refusal that says all that is wrong."""

from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from housing_lib.contract import FEATURES, Floats
from serve import problems, tables
from serve.problems import refuse
from serve.schemas import Actual, Actuals, Batch, District, Problem, features_of, rows_of
from serve.truths import Truth

JSON = "application/json"
# The quotation marks of a district: more of them mean a name that stands there twice.
QUOTES = 2 * len(FEATURES)
# Those of a true price: of its three names and its moment, and of an id or of features.
NAMED_QUOTES, PLACED_QUOTES = 8 + 2, 8 + QUOTES

_district = msgspec.json.Decoder(District)
_batch = msgspec.json.Decoder(Batch)
_actuals = msgspec.json.Decoder(Actuals)


def content_type(headers: Mapping[bytes, bytes]) -> str:
    """What a body calls itself, without parameters."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")


def require_json(headers: Mapping[bytes, bytes]) -> None:
    """Refuse what does not call itself JSON.

    A page of another site can make a browser send anything but this header.

    Raises
    ------
    RefusedError
        If the content type is another one.
    """
    found = content_type(headers)
    if found != JSON:
        named = f"a body without `Content-Type: {JSON}`"
        problem = Problem("(body)", "calls itself something else", named, f"Content-Type: {JSON}")
        raise refuse([problem])


def read_district(body: bytes) -> Floats:
    """The district in a JSON body, shape (1, 8).

    Raises
    ------
    RefusedError
        If it is none.
    """
    try:
        values = features_of(_district.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise problems.explain_district(body) from None
    if body.count(b'"') != QUOTES or values.count(None) == len(FEATURES):
        raise problems.explain_district(body)
    return np.array([values], dtype="float64")


def read_batch(body: bytes, kind: str, read_table: Callable[[bytes, str], Floats]) -> Floats:
    """The districts in a body of that content type, shape (rows, 8).

    Parameters
    ----------
    read_table
        From a body that is no JSON, and its content type, to districts.

    Raises
    ------
    RefusedError
        If it holds anything else.
    """
    if kind in tables.TYPES:
        return read_table(body, kind)
    if kind != JSON:
        expected = ", ".join((JSON, *tables.TYPES))
        found = Problem("(body)", "not a kind that is read", kind[:60] or "nothing", expected)
        raise refuse([found], status=415)
    try:
        districts = _batch.decode(body).districts
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise problems.explain_batch(body) from None
    rows = rows_of(districts)
    if body.count(b'"') != QUOTES * len(rows) + 2 or np.isnan(rows).all(axis=1).any():
        raise problems.explain_batch(body)
    return rows


def read_actuals(body: bytes) -> list[Truth]:
    """The true prices in a JSON body.

    Raises
    ------
    RefusedError
        If it holds anything else.
    """
    try:
        found = _actuals.decode(body).actuals
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise problems.explain_actuals(body) from None
    if any(
        (one.prediction_id is msgspec.UNSET) == (one.features is msgspec.UNSET)
        or not problems.is_moment(one.observed_at)
        for one in found
    ):
        raise problems.explain_actuals(body)
    truths = [_truth(one) for one in found]
    quotes = 2 + sum(NAMED_QUOTES if one.features is None else PLACED_QUOTES for one in truths)
    if body.count(b'"') != quotes or any(_is_unknown(one.features) for one in truths):
        raise problems.explain_actuals(body)
    return truths


def _is_unknown(features: tuple[float | None, ...] | None) -> bool:
    return features is not None and features.count(None) == len(FEATURES)


def _truth(one: Actual) -> Truth:
    named = None if one.prediction_id is msgspec.UNSET else one.prediction_id
    features = None if one.features is msgspec.UNSET else features_of(one.features)
    return Truth(named, features, one.median_house_value, one.observed_at)
