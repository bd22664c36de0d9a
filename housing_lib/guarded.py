"""The slices of districts that no new model may make worse."""

from itertools import pairwise

import numpy as np
import pandas as pd

from housing_lib.data import Floats, capped
from housing_lib.gains import Mask
from housing_lib.places import REGIONS, regions
from housing_lib.summary import dollars

LEAST_ROWS = 50  # a smaller slice holds too few districts to tell harm from chance


def slices_of(districts: pd.DataFrame, prices: Floats) -> dict[str, Mask]:
    """The guarded slices: regions around cities, quarters of the known prices, capped districts.

    A slice of fewer than `LEAST_ROWS` districts is left out.
    """
    masks = {**_regions(districts), **price_slices(prices)}
    return {name: mask for name, mask in masks.items() if mask.sum() >= LEAST_ROWS}


def price_slices(prices: Floats) -> dict[str, Mask]:
    """Those of them that are cut by the true price."""
    return {**_quarters(prices, ~capped(prices)), "capped districts": capped(prices)}


def answer_slices(answers: Floats) -> dict[str, Mask]:
    """The quarters of what a model answers, which stand for those of prices once these moved.

    Among districts that turned out cheap, whoever asks too little is always better
    than who follows a rise; among those that a model takes for cheap, it is not.
    """
    found = _quarters(answers, np.ones(len(answers), dtype=bool))
    return {f"answers of {name}": mask for name, mask in found.items()}


def _regions(districts: pd.DataFrame) -> dict[str, Mask]:
    found = regions(districts["Latitude"].to_numpy(), districts["Longitude"].to_numpy())
    return {name: found == name for name in REGIONS}


def _quarters(values: Floats, among: Mask) -> dict[str, Mask]:
    if not among.any():
        return {}
    quantiles = np.quantile(values[among], [0, 0.25, 0.5, 0.75, 1])
    # Edges that read the same are one, so that no band takes the name of another.
    edges = {dollars(edge): edge for edge in quantiles}
    names = [f"{low} to {high}" for low, high in pairwise(edges)] or list(edges)
    inner = list(edges.values())[1:-1]
    band = np.searchsorted(inner, values, side="left")
    return {name: among & (band == k) for k, name in enumerate(names)}
