"""What is wrong with a body, in the words of the contract: all of it at once."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import msgspec

from housing_lib.contract import CONTRACT, FEATURES
from serve.schemas import MOST_ROWS, Moment, Problem, Refusal

IDENTITY = "either prediction_id or features"
WHEN = "a date and time of 1900 or later with its zone, as 2026-11-23T12:00:00Z"
NO_FEATURE = "not a feature of a district"
LONGEST_SHOWN = 60
MOST_PROBLEMS = 20
# What the parameters in an address may be.
QUERY = {name.lower(): f"a number from {CONTRACT[name].expected}" for name in FEATURES[6:]}
QUERY["explain"] = "true or false"
UNREADABLE = Problem(
    field="(body)",
    problem="cannot be read",
    found="text that is not UTF-8, or is nested too deeply, or holds endless digits",
    expected="JSON in UTF-8",
)
UNEXPLAINED = Problem(
    field="explain",
    problem="is not answered for a batch",
    found="true",
    expected="one district at a time, by /predict?explain=true",
)


class RefusedError(Exception):
    """A request that cannot be answered as it stands."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.status, self.refusal = status, refusal


def refuse(problems: Sequence[Problem], *, status: int = 422, what: str = "body") -> RefusedError:
    """The error that names these problems, the first of them if they are many."""
    noun = "problem" if len(problems) == 1 else "problems"
    shown = list(map(_with_hint, problems[:MOST_PROBLEMS]))
    more = f", of which the first {len(shown)} are listed" if len(problems) > len(shown) else ""
    detail = f"{len(problems):,} {noun} in the {what}{more}; nothing was done."
    return RefusedError(status, Refusal(detail=detail, problems=shown))


def explain_district(body: bytes) -> RefusedError:
    """Why a body is not one district."""
    content, problems = _read(body)
    return refuse(problems or district_problems(content) or [UNREADABLE])


def explain_batch(body: bytes) -> RefusedError:
    """Why a body is not a batch of districts."""
    content, problems = _read(body)
    return refuse(problems or _listed(content, "districts", district_problems) or [UNREADABLE])


def explain_actuals(body: bytes) -> RefusedError:
    """Why a body is not a list of true prices."""
    content, problems = _read(body)
    return refuse(problems or _listed(content, "actuals", _actual_problems) or [UNREADABLE])


def explain_query(errors: Sequence[Any]) -> RefusedError:
    """Why the parameters of an address are not those of a route, as pydantic found out."""
    return refuse(list(map(_query_problem, errors)), what="address")


def _query_problem(error: Any) -> Problem:
    name = str(error["loc"][-1])
    found = "nothing" if error["type"] == "missing" else _shown(error["input"])
    return Problem(name, _fault(error), found, QUERY.get(name, error["msg"]))


def _fault(error: Any) -> str:
    """What pydantic calls `bool_parsing` or `less_than_equal`, in the words of the contract."""
    kind, bounds = error["type"], error.get("ctx", {})
    if kind == "bool_parsing":
        return "neither true nor false"
    if kind == "finite_number":
        return "not a finite number"
    if "ge" in bounds or "le" in bounds:
        return (
            f"below {_plain(bounds['ge'])}" if "ge" in bounds else f"above {_plain(bounds['le'])}"
        )
    return "not a number" if kind.endswith("_parsing") else kind.replace("_", " ")


class _TwiceError(ValueError):
    pass


def _read(body: bytes) -> tuple[Any, list[Problem]]:
    """What the JSON in a body holds; or what is wrong with the JSON."""
    try:
        return json.loads(body.decode(), object_pairs_hook=_once), []
    except _TwiceError as error:
        name = _shown(str(error)).strip('"')
        found = Problem(name, "given more than once", "several values", "each name once")
        return None, [found]
    except json.JSONDecodeError as error:
        fault = f"not JSON: {error.msg} at character {error.pos}"
        cut = "text that ends too early or is not JSON"
        return None, [Problem("(body)", fault, cut, "one JSON object")]
    except (ValueError, RecursionError):
        return None, [UNREADABLE]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _TwiceError(next(name for name, count in counts.items() if count > 1))
    return found


def district_problems(content: Any) -> list[Problem]:
    """Everything that keeps a JSON value from being a district."""
    if not isinstance(content, dict):
        expected = f"a JSON object with {', '.join(FEATURES)}"
        return [Problem("(body)", "not a JSON object", _shown(content), expected)]
    problems = [_unknown_field(name, content[name]) for name in content if name not in FEATURES]
    for name in FEATURES:
        if name not in content:
            problems.append(Problem(name, "missing", "nothing", _expected(name)))
        elif content[name] is not None:
            problems += number_problems(name, content[name])
    if not problems and all(value is None for value in content.values()):
        found = Problem("(body)", "all eight features are null", "null", "at least one number")
        problems.append(found)
    return problems


def number_problems(name: str, value: Any) -> list[Problem]:
    """What is wrong with one value of a column of the contract."""
    column = CONTRACT[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        fault = "not a number"
    elif isinstance(value, float) and not math.isfinite(value):
        fault = "not a finite number"
    elif value < column.low:
        fault = f"below {_plain(column.low)}"
    elif value > column.high:
        fault = f"above {_plain(column.high)}"
    else:
        return []
    return [Problem(name, fault, _shown(value), _expected(name))]


def _listed(content: Any, name: str, check: Any) -> list[Problem]:
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list) or len(content) > 1:
        expected = f'{{"{name}": [...]}} with 1 to {MOST_ROWS:,} of them'
        return [Problem("(body)", f"not an object with `{name}` alone", _shown(content), expected)]
    if not 1 <= len(rows) <= MOST_ROWS:
        return [size_problem(len(rows), name)]
    problems = []
    for number, row in enumerate(rows):
        for problem in check(row):
            problem.row = number
            problems.append(problem)
    return problems


def size_problem(rows: int, name: str = "districts") -> Problem:
    """That a batch is empty or too large."""
    fault = "too few" if rows < 1 else "too many"
    return Problem(name, fault, f"{rows:,}", f"1 to {MOST_ROWS:,}; send several batches")


def _actual_problems(content: Any) -> list[Problem]:
    if not isinstance(content, dict):
        return [Problem("(row)", "not a JSON object", _shown(content), "a true price")]
    known = {"median_house_value", "observed_at", "prediction_id", "features"}
    problems = [
        Problem(_name(name), "not a name of a true price", _shown(value), ", ".join(sorted(known)))
        for name, value in content.items()
        if name not in known
    ]
    problems += [
        Problem("median_house_value", one.problem, one.found, one.expected)
        for one in number_problems("MedHouseVal", content.get("median_house_value"))
    ]
    if "features" in content:
        problems += district_problems(content["features"])
    if ("features" in content) == ("prediction_id" in content):
        which = "both" if "features" in content else "neither"
        problems.append(Problem("(row)", "says not what it is of", which, IDENTITY))
    return problems or _odd_actual(content)


def _odd_actual(content: dict[str, Any]) -> list[Problem]:
    problems = []
    given = content.get("prediction_id", "x")
    if not isinstance(given, str) or not 1 <= len(given) <= 64 or '"' in given:
        expected = "1 to 64 characters, none of them a quotation mark"
        problems.append(Problem("prediction_id", "not an id", _shown(given), expected))
    try:
        aware = is_moment(msgspec.convert(content.get("observed_at"), Moment))
    except msgspec.ValidationError:
        aware = False
    if not aware:
        found = _shown(content.get("observed_at"))
        problems.append(Problem("observed_at", "not a moment", found, WHEN))
    return problems


def is_moment(given: datetime) -> bool:
    """Whether a date and time is of these centuries, which every database can tell in any zone."""
    return 1900 <= given.year < 2900


def _unknown_field(name: str, value: Any) -> Problem:
    expected = f"no other names than {', '.join(FEATURES)}"
    return Problem(_name(name), NO_FEATURE, _shown(value), expected)


def _with_hint(problem: Problem) -> Problem:
    """The problem with the nearest right name, which takes too long to look for in all of them."""
    by_lower = {feature.lower(): feature for feature in FEATURES}
    if problem.problem == NO_FEATURE:
        for near in get_close_matches(problem.field.lower(), by_lower, n=1):
            hint = f"{NO_FEATURE}; did you mean '{by_lower[near]}'?"
            return msgspec.structs.replace(problem, problem=hint)
    return problem


def _expected(name: str) -> str:
    return f"a number from {CONTRACT[name].expected}{', or null' if name in FEATURES else ''}"


def _plain(bound: float) -> str:
    return f"{bound:,.10g}"


def _name(name: str) -> str:
    return _shown(name).strip('"')


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    try:
        # In ASCII, so that no body can make the answer itself fail.
        text = json.dumps(value, default=str)
    except ValueError:
        text = "a number of endless digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
