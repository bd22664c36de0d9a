"""The model card: what a model is for, how good it is and where it is not, from a run's figures."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from housing_lib.data import SOURCES, USD_PER_UNIT
from housing_lib.evaluation import slice_name
from housing_lib.families import title
from housing_lib.makeup import made_of
from housing_lib.summary import percent

# The words (Mitchell et al. 2019); every figure but those of slices is a metric in MLflow too.
CARD = """\
# Model card: {title}, version {version}

## What it is made of
{made_of}

## What it is for
It estimates the median value of owner-occupied homes in a Californian census district{when},
from its eight columns. It is made for teaching, for comparing methods, and as a pattern for systems
of this kind. **It must not be used** to price a home, to decide on a loan, a rent or an insurance,
or for {elsewhere}.

## Data
{rows_fit:,.0f} districts fitted it (data `{data_digest}`). {rows_test:,.0f} others judged it; no
search and no choice of a champion looked at them. {prices} Averages over a handful of households,
in holiday and group quarters, say little. Incomes and places mirror who lived where: errors differ
between regions, as the table shows.

## How good it is
| on districts that it never saw | | 95 % interval |
|---|---|---|
| RMSE | ${test_rmse:,.0f} | ${test_rmse_low:,.0f} to ${test_rmse_high:,.0f} |
| mean absolute error | ${test_mae:,.0f} | ${test_mae_low:,.0f} to ${test_mae_high:,.0f} |
| R² | {test_r2:.3f} | {test_r2_low:.3f} to {test_r2_high:.3f} |
| RMSE where blocks of half a degree were held out | ${block_rmse:,.0f} | |
| prices inside the 90 % interval | {covered} | |
| RMSE of tuned XGBoost on the eight columns | ${baseline_rmse:,.0f} | |

Among known districts it knows the neighbours' prices. In a region that nobody sampled it does not,
and its error is the one in the fourth line.

## Where it is better and worse
{slices}

## Limits
Intervals hold on average over districts like the data's, not for each one. Answers for a place far
from every known district, or outside California, should not be trusted; batch prediction flags
both, the server the first alone. Importances say what the model uses, not what causes prices.

## Licence
MIT, for code and model. The data: {origin}.
"""
OF_THE_CENSUS = {
    "when": " of 1990",
    "elsewhere": "any other year or state",
    "prices": """The prices are those of 1990; districts above 500,000 dollars were recorded as
500,001 ({capped} of the test districts), so answers near that limit mean "at least".""",
    "origin": """Pace and Barry, "Sparse spatial autoregressions" (1997), from the
census of 1990, which is in the public domain""",
}
OF_ONES_OWN = {
    "when": "",
    "elsewhere": "a time or a state that its data are not about",
    "prices": """The prices are those of a source of somebody's own, of its time
and with its limits.""",
    "origin": "whatever their source says of itself",
}
MONEY = ("rmse", "mae")


def model_card(
    family: str,
    version: int,
    data_digest: str,
    metrics: Mapping[str, float],
    slices: pd.DataFrame,
    *,
    source: str = "bundled",
) -> str:
    """The card in Markdown, from logged metrics in 100,000 USD and the slices of the test.

    `source` is where the districts are from: what is known of the census is told of it alone.
    """
    figures: dict[str, Any] = {
        name: value * USD_PER_UNIT if any(one in name for one in MONEY) else value
        for name, value in metrics.items()
    }
    shares = {"covered": metrics["test_coverage"], "capped": metrics["capped_share"]}
    figures |= {name: percent(share, 1) for name, share in shares.items()}
    words = OF_THE_CENSUS if source in SOURCES else OF_ONES_OWN
    return CARD.format(
        title=title(family),
        made_of=made_of([family]),
        version=version,
        data_digest=data_digest,
        slices=_slice_lines(slices),
        **figures,
        **{name: text.format(**figures) for name, text in words.items()},
    )


def _slice_lines(slices: pd.DataFrame) -> str:
    lines = ["| districts | how many | RMSE | inside the 90 % interval |", "|---|---|---|---|"]
    for (by, name), row in zip(slices.index, slices.to_dict("records"), strict=True):
        shown = slice_name(by, name)
        money = f"${row['rmse'] * USD_PER_UNIT:,.0f}"
        lines.append(
            f"| {shown} | {row['districts']:,.0f} | {money} | {percent(row['coverage'])} |"
        )
    return "\n".join(lines)
