"""The house style of figures: one palette, one type scale, dollars on the axes, alt text."""

import io
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from housing_lib import summary
from housing_lib.data import USD_PER_UNIT

# Okabe and Ito's colours, which people with any colour vision tell apart.
BLUE, ORANGE, GREEN, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00"
INK, GREY = "#222222", "#8A8A8A"
LOW_TO_HIGH, BELOW_TO_ABOVE = "flare", "vlag"
PRICE = "median house value (dollars)"
WIDTH = 7.5


def use_house_style() -> None:
    """Draw every figure from here on in the house style, sharp on any screen.

    Tables repeat the names of their rows, so that each can be sorted and copied.
    """
    pd.set_option("styler.sparse.index", False, "display.multi_sparse", False)
    grid = {"grid.color": "#E6E6E6", "grid.linewidth": 0.8, "axes.grid": True}
    spines = {"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY}
    sizes = {"font.size": 10, "axes.titlesize": 11.5, "axes.labelsize": 10, "legend.fontsize": 9}
    titles = {"axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlepad": 10}
    ink = {"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    frame = {"figure.constrained_layout.use": True, "legend.frameon": False}
    frame |= {"text.parse_math": False}  # a dollar sign is a dollar sign
    resolution = {"figure.dpi": 96, "savefig.dpi": 192}
    small = {"xtick.labelsize": 9, "ytick.labelsize": 9, "font.family": "DejaVu Sans"}
    sns.set_theme(
        style="ticks",
        palette=[BLUE, ORANGE, GREEN, SKY, RED],
        rc=grid | spines | sizes | titles | ink | frame | resolution | small,
    )


def show(drawn: Axes | Figure, alt: str) -> None:
    """Display a figure once, with `alt` for those who cannot see it, and close it.

    The picture is made here rather than by the notebook's back end, so that it
    also appears where another back end was asked for.
    """
    figure = drawn.get_figure(root=True)
    assert figure is not None
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight")
    plt.close(figure)
    image = Image(picture.getvalue(), format="png", alt=alt, retina=True)  # type: ignore[no-untyped-call]
    display(image)  # type: ignore[no-untyped-call]


def dollars(value: float) -> str:
    """A price in 100,000 USD as a person writes it on an axis.

    >>> dollars(2.5)
    '$250k'
    """
    thousands = f"{abs(value) * USD_PER_UNIT / 1_000:,.4g}"
    return f"{'−' if value < 0 else ''}${thousands}k" if thousands != "0" else "$0"


def short_dollars(value: float) -> str:
    """A difference of prices in 100,000 USD, to a hundred dollars."""
    return f"{'−' if value < 0 else ''}${abs(value) * USD_PER_UNIT / 1_000:,.1f}k"


def whole_dollars(value: float) -> str:
    """A difference of prices in 100,000 USD: below a thousand dollars to the dollar.

    >>> whole_dollars(0.0003), whole_dollars(0.0312)
    ('$30', '$3.1k')
    """
    rounded = round(value * USD_PER_UNIT)
    return f"${rounded}" if 0 <= rounded < 1_000 else short_dollars(value)


def new_axes(*, height: float, width: float = WIDTH) -> Axes:
    """The axes of a new figure of one panel, in inches."""
    axes: Axes = plt.subplots(figsize=(width, height))[1]
    return axes


def new_panels(count: int, *, across: int, height: float) -> tuple[Figure, list[Axes]]:
    """A new figure and `count` panels in rows of `across`, each `height` inches."""
    down = max(1, -(-count // across))
    figure, grid = plt.subplots(down, across, figsize=(8, height * down), squeeze=False)
    for surplus in grid.flat[count:]:
        surplus.set_visible(False)
    return figure, list(grid.flat[:count])


class DollarTicks(FuncFormatter):
    """Prices in 100,000 USD as dollars, all ticks of an axis written alike."""

    def __init__(self) -> None:
        super().__init__(lambda value, _: dollars(value))

    def format_ticks(self, values: Iterable[float]) -> list[str]:
        """The ticks as they are written: thousands with a decimal at most, or whole dollars."""
        ticks = list(values)
        thousands = np.array(ticks) * USD_PER_UNIT / 1_000
        exact = (n for n in range(2) if np.allclose(thousands, thousands.round(n), atol=1e-6))
        decimals = next(exact, None)
        if decimals is None:
            return [summary.dollars(value) for value in ticks]
        return [_thousands(value, decimals) for value in thousands.round(decimals)]


def _thousands(value: float, decimals: int) -> str:
    return f"{'−' if value < 0 else ''}${abs(value):,.{decimals}f}k" if value else "$0"


def in_dollars(axis: Axis) -> None:
    """Write the values of an axis, in 100,000 USD, as dollars."""
    axis.set_major_formatter(DollarTicks())


def logarithmic(axis: XAxis | YAxis) -> None:
    """Make an axis logarithmic, with plain numbers at round places."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(plainly))
    axis.set_minor_formatter(NullFormatter())


def plainly(value: float, _: int | None) -> str:
    """A number without powers of ten, as a matplotlib formatter writes it."""
    return f"{value:,.10g}"


def focus(axes: Axes, values: pd.Series, *, keep: Iterable[float] = ()) -> None:
    """Limit the y axis to the usual values, and say how many lie outside."""
    low, high = values.quantile([0.25, 0.75])
    reach = 3 * (high - low)
    usual = values[values.between(low - reach, high + reach)]
    shown = np.array([*usual, *keep])
    if not len(shown) or np.ptp(shown) == 0:
        return
    margin = 0.06 * np.ptp(shown)
    axes.set_ylim(shown.min() - margin, shown.max() + margin)
    outside = int((~values.dropna().between(*axes.get_ylim())).sum())
    if outside:
        text = f"{outside} beyond this picture"
        axes.text(1, 1.01, text, transform=axes.transAxes, ha="right", fontsize=8, color=GREY)


def legend_above(axes: Axes) -> None:
    """Put the legend between the title and the picture, where it hides nothing."""
    axes.set_title(axes.get_title(loc="left"), pad=26)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=4, borderaxespad=0.3)
