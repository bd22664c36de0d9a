"""What the tests of batch prediction share: who is asked, and files of districts."""

import pytest

from housing_lib.answering import Identity
from housing_lib.data import DataError
from housing_lib.scoring import predict


def identity_of(store):
    """Which model it is that answers."""
    one = store.registered
    return Identity(one.name, one.version, one.family, one.run_id, one.data_digest, "", "")


def write(table, path):
    """The path, after the table was written to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path


def refused(source, target, asked):
    """The text of the error, once it is proved that nothing was written."""
    before = sorted(source.parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        predict(str(source), str(target), asked=asked)
    assert sorted(source.parent.rglob("*")) == before
    assert "Nothing was written" in str(caught.value)
    return str(caught.value)
