"""Batches of new districts against true prices."""

import numpy as np
import pandas as pd
import pytest

from housing_lib import data, monitoring
from housing_lib.evaluation import metrics


class HalfPrice:
    """A model that answers half of the true price."""

    def predict(self, districts: pd.DataFrame) -> np.ndarray:
        return districts[data.TARGET].to_numpy() / 2


@pytest.fixture(scope="module")
def districts() -> pd.DataFrame:
    return data.acquire().head(95)


def test_each_batch_has_the_metrics_that_scikit_learn_gives(districts):
    _, faults = data.check_rows(districts, origin="test")
    batches = monitoring.score_batches(districts, faults, HalfPrice(), batch_rows=10)
    assert len(batches) == 10
    for number in batches.index:
        rows = districts.iloc[10 * number : 10 * number + 10]
        prices = rows[data.TARGET].to_numpy()
        wanted = metrics(prices, prices / 2)
        found = batches.loc[number]
        assert found["batch_rmse"] == pytest.approx(wanted["rmse"])
        assert found["batch_mae"] == pytest.approx(wanted["mae"])
        assert found["batch_r2_score"] == pytest.approx(wanted["r2"])
        assert found["num_rows_in_batch"] == len(rows)


def test_rows_that_break_the_contract_are_counted_and_left_out(districts):
    arriving = districts.head(20).astype(object)
    arriving.loc[3, "MedInc"] = "high"
    arriving.loc[10:, data.TARGET] = None
    rows, faults = data.check_rows(arriving, origin="test")
    batches = monitoring.score_batches(rows, faults, HalfPrice(), batch_rows=10)
    assert list(batches["num_rows_in_batch"]) == [10, 10]
    assert list(batches["num_valid_rows_in_batch"]) == [9, 0]
    assert np.isnan(batches.loc[1, "batch_rmse"])


def test_r2_is_missing_where_there_is_nothing_to_explain(districts):
    same = districts.head(3).assign(MedHouseVal=2.0)
    _, faults = data.check_rows(same, origin="test")
    assert (
        monitoring.score_batches(same, faults, HalfPrice(), batch_rows=3)["batch_r2_score"]
        .isna()
        .all()
    )


def test_no_valid_row_and_no_batch_size_are_refused(districts):
    rows, faults = data.check_rows(districts.assign(MedHouseVal=-1.0), origin="test")
    with pytest.raises(data.DataError, match="0 of them valid"):
        monitoring.score_batches(rows, faults, HalfPrice(), batch_rows=10)
    rows, faults = data.check_rows(districts, origin="test")
    with pytest.raises(data.DataError, match="batches of 0"):
        monitoring.score_batches(rows, faults, HalfPrice(), batch_rows=0)


def test_rows_that_a_model_was_fitted_on_are_counted(store):
    assert monitoring.fitted_rows(store.test) == 0
    assert monitoring.fitted_rows(data.acquire()) == 20_640 - len(store.test)
