"""What stands behind the name of a candidate, in words: one estimator, or several."""

from collections.abc import Iterable

from housing_lib.families import BLEND, FAMILIES, Family, title

BESIDE = (
    "stands one of the same kind that sees no neighbours; the farther the nearest known "
    "districts are, the more that one counts."
)
BLENDED = "it answers with the weighted mean of several families"


def beyond_one(name: str) -> str:
    """What a candidate's model is made of where that is more than one estimator, or empty.

    A family's search fits the first estimator alone, as `make_model` does with `repeats=1`.
    """
    if name == BLEND:
        return BLENDED
    family = FAMILIES.get(name)
    if family is None or family.repeats == 1:
        return ""
    parts = [f"it is fitted with {family.repeats} seeds", *_others(family)]
    return f"{''.join(parts)}; it answers with their weighted mean"


def _others(family: Family) -> list[str]:
    start = ", every other of them on what a line leaves" if family.start is not None else ""
    networks = f"{family.networks} small neural networks learn the same"
    again = "; each learns from districts again as half of their neighbours would show them"
    return [
        start,
        f", and {networks}" if family.networks else "",
        again if family.thinned else "",
    ]


def made_of(names: Iterable[str]) -> str:
    """What the models of candidates are made of, in sentences; nothing of what is unknown."""
    known = [name for name in names if name in FAMILIES or name == BLEND]
    beyond = {title(name): beyond_one(name) for name in known}
    told = [f"{name} is more than one model: {words}." for name, words in beyond.items() if words]
    plain = [name for name, words in beyond.items() if not words]
    others = (
        plain[0] if len(beyond) == len(plain) == 1 else "Every other family" if told else "Each"
    )
    single = f"{others} is a single model." if plain else ""
    families = sum(name in FAMILIES for name in known)
    beside = f"Beside {'each of them' if families > 1 else 'it'} {BESIDE}" if families else ""
    return " ".join(filter(None, [*told, single, beside]))
