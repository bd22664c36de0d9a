"""The figures of the notebooks: values in, `Axes` or `Figure` out, in one house style.

Prices and errors come in units of 100,000 USD, as in the data set, and are
drawn in dollars.
"""

from housing_lib.plots.districts import (
    binned_price,
    correlations,
    distributions,
    outliers,
    price_histogram,
    transfer,
    variogram,
)
from housing_lib.plots.maps import error_map, price_map
from housing_lib.plots.models import (
    MOST_BARS,
    importance_bars,
    metric_grid,
    residuals,
    search_history,
    search_slices,
)
from housing_lib.plots.monitoring import (
    quality_grid,
    session_history,
    shift_bars,
    strangeness,
)
from housing_lib.plots.style import dollars, show, use_house_style

__all__ = [
    "MOST_BARS",
    "binned_price",
    "correlations",
    "distributions",
    "dollars",
    "error_map",
    "importance_bars",
    "metric_grid",
    "outliers",
    "price_histogram",
    "price_map",
    "quality_grid",
    "residuals",
    "search_history",
    "search_slices",
    "session_history",
    "shift_bars",
    "show",
    "strangeness",
    "transfer",
    "use_house_style",
    "variogram",
]
