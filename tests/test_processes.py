"""One piece of work in a process of its own."""

import time

import pytest
from clusters import sleep_a_minute

from housing_lib.processes import ProcessDiedError, call_in_process


def test_what_is_stopped_before_it_began_does_not_begin():
    started = time.monotonic()
    with pytest.raises(ProcessDiedError, match="the run took too long"):
        call_in_process(sleep_a_minute, on_message=print, stopping=lambda: "the run took too long")
    assert time.monotonic() - started < 30
