"""The maps of California: prices, and where a model is wrong."""

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import Collection

from housing_lib.data import CONTRACT, TARGET, Floats
from housing_lib.geography import city_name
from housing_lib.places import CITIES
from housing_lib.plots.style import (
    BELOW_TO_ABOVE,
    INK,
    LOW_TO_HIGH,
    PRICE,
    DollarTicks,
    new_axes,
)


def price_map(districts: pd.DataFrame) -> Axes:
    """The districts on the map, coloured by price."""
    axes = _map_axes(districts)
    points = axes.scatter(
        districts["Longitude"],
        districts["Latitude"],
        c=districts[TARGET],
        s=3,
        alpha=0.7,
        linewidths=0,
        cmap=LOW_TO_HIGH,
    )
    _colour_bar(points, axes, PRICE)
    _name_cities(axes)
    axes.set_title("Where are the dear districts?")
    return axes


def error_map(districts: pd.DataFrame, errors: Floats) -> Axes:
    """The mean error of the districts in each cell of the map.

    Colours end where 98 % of the cells lie, so that a few extreme ones do not
    pale all others.
    """
    axes = _map_axes(districts)
    axes.set_facecolor("#F0F0F0")
    cells = axes.hexbin(
        districts["Longitude"],
        districts["Latitude"],
        C=errors,
        gridsize=42,
        cmap=BELOW_TO_ABOVE,
        linewidths=0.1,
    )
    sizes = np.abs(np.asarray(cells.get_array()))
    limit = (float(np.quantile(sizes, 0.98)) if len(sizes) else 0) or 1.0
    cells.set_clim(-limit, limit)
    _colour_bar(cells, axes, "mean error: prediction minus price (dollars)", extend="both")
    _name_cities(axes)
    axes.set_title("Where does the model ask too much (red) or too little (blue)?")
    return axes


def _map_axes(districts: pd.DataFrame) -> Axes:
    axes = new_axes(width=7, height=6.2)
    longitude, latitude = CONTRACT["Longitude"], CONTRACT["Latitude"]
    axes.set(xlim=(longitude.low, longitude.high), ylim=(latitude.low, latitude.high))
    middle = np.nan_to_num(districts["Latitude"].mean(), nan=(latitude.low + latitude.high) / 2)
    axes.set_aspect(float(1 / np.cos(np.deg2rad(middle))))
    axes.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)")
    return axes


def _colour_bar(drawn: Collection, axes: Axes, label: str, *, extend: str = "neither") -> None:
    figure = axes.get_figure(root=True)
    assert figure is not None
    written = DollarTicks()
    bar = figure.colorbar(drawn, ax=axes, label=label, shrink=0.7, format=written, extend=extend)
    if bar.solids is not None:
        bar.solids.set_alpha(1)


def _name_cities(axes: Axes) -> None:
    halo = [effects.withStroke(linewidth=2.5, foreground="white")]
    for city, (latitude, longitude) in CITIES.items():
        axes.annotate(
            city_name(city),
            (longitude, latitude),
            xytext=(-7, -3),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            path_effects=halo,
        )
        axes.plot(longitude, latitude, "o", markersize=3.5, color=INK, markeredgecolor="white")
