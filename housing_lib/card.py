"""The model card: what a model is for, how good it is and where it is not, from a run's figures."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from housing_lib.data import USD_PER_UNIT
from housing_lib.evaluation import slice_name
from housing_lib.families import title

# The words (Mitchell et al. 2019); every figure but those of slices is a metric in MLflow too.
CARD = """\
# Model card: {title}, version {version}

## What it is for
It estimates the median value of owner-occupied homes in a Californian census district of 1990,
from eight columns of the census. It is made for teaching, for comparing methods, and as a pattern
for systems of this kind. **It must not be used** to price a home, to decide on a loan, a rent or an
insurance, or for any other year or state.

## Data
{rows_fit:,.0f} districts fitted it (data `{data_digest}`), {rows_test:,.0f} others judged it, once.
The prices are those of 1990; districts above 500,000 dollars were recorded as 500,001
({capped_share:.1%} of the test districts), so answers near that limit mean "at least". Averages
over a handful of households, in holiday and group quarters, say little. Incomes and places mirror
who lived where: errors differ between regions, as the table shows.

## How good it is
| on districts that it never saw | | 95 % interval |
|---|---|---|
| RMSE | ${test_rmse:,.0f} | ${test_rmse_low:,.0f} to ${test_rmse_high:,.0f} |
| mean absolute error | ${test_mae:,.0f} | ${test_mae_low:,.0f} to ${test_mae_high:,.0f} |
| R² | {test_r2:.3f} | {test_r2_low:.3f} to {test_r2_high:.3f} |
| RMSE where blocks of half a degree were held out | ${block_rmse:,.0f} | |
| prices inside the 90 % interval | {test_coverage:.1%} | |
| RMSE of tuned XGBoost on the eight columns | ${baseline_rmse:,.0f} | |

Among known districts it knows the neighbours' prices. In a region that nobody sampled it does not,
and its error is the one in the fourth line.

## Where it is better and worse
{slices}

## Limits
Intervals hold on average over districts like the data's, not for each one. A place far from every
known district, or outside California, is flagged and its answer should not be trusted.
Importances say what the model uses, not what causes prices.

## Licence
MIT, for code and model. The data: Pace and Barry, "Sparse spatial autoregressions" (1997), from the
census of 1990, which is in the public domain.
"""
MONEY = ("rmse", "mae")


def model_card(
    family: str,
    version: int,
    data_digest: str,
    metrics: Mapping[str, float],
    slices: pd.DataFrame,
) -> str:
    """The card in Markdown, from logged metrics in 100,000 USD and the slices of the test."""
    figures: dict[str, Any] = {
        name: value * USD_PER_UNIT if any(one in name for one in MONEY) else value
        for name, value in metrics.items()
    }
    return CARD.format(
        title=title(family),
        version=version,
        data_digest=data_digest,
        slices=_slice_lines(slices),
        **figures,
    )


def _slice_lines(slices: pd.DataFrame) -> str:
    lines = ["| districts | how many | RMSE | inside the 90 % interval |", "|---|---|---|---|"]
    for (by, name), row in zip(slices.index, slices.to_dict("records"), strict=True):
        shown = slice_name(by, name)
        money = f"${row['rmse'] * USD_PER_UNIT:,.0f}"
        lines.append(f"| {shown} | {row['districts']:,.0f} | {money} | {row['coverage']:.0%} |")
    return "\n".join(lines)
