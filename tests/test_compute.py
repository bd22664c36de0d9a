"""Work is done wherever there is room, with the same results, and survives its workers."""

import time
from multiprocessing import active_children

import pytest
from benchmarks import accuracy
from clusters import always_die, both_die, die_once, fail, times

from housing_lib import compute, data, families, processes
from housing_lib.settings import get_settings


@pytest.fixture(params=["local", "cluster"])
def place(request):
    """Processes of this machine, or the workers of a cluster."""
    if request.param == "cluster":
        request.getfixturevalue("on_cluster")
    return request.param


def results(function, shared, count):
    """The results of numbered tasks, by number."""
    tasks = [(number,) for number in range(count)]
    return dict(compute.each(function, tasks, shared=shared, jobs=2))


@pytest.mark.usefixtures("place")
def test_every_task_is_done_once_with_what_all_share():
    assert results(times, 7, 20) == {number: 7 * number for number in range(20)}


def test_a_worker_that_dies_costs_its_task_a_second_attempt(place, tmp_path):
    marker = tmp_path / "died"
    assert results(die_once, marker, 6) == {number: number for number in range(6)}
    assert marker.exists()


@pytest.mark.usefixtures("place")
def test_if_all_workers_die_at_once_their_tasks_are_given_to_new_ones(tmp_path):
    assert results(both_die, tmp_path / "died", 2) == {0: 0, 1: 1}


@pytest.mark.usefixtures("place")
def test_an_error_of_a_task_is_the_callers_and_is_not_tried_again():
    with pytest.raises(ValueError, match=r"task [01] is wrong"):
        results(fail, None, 2)


def test_seeds_and_blocks_of_a_benchmark_come_to_the_same_on_a_cluster(request):
    districts = data.acquire().sample(1_500, random_state=0).reset_index(drop=True)
    models = {"ridge": families.make_model("ridge")}
    kinds = {
        "random": list(accuracy.random_splits(len(districts), [0, 1])),
        "blocks": list(accuracy.block_splits(districts, folds=2)),
    }

    def figures():
        found = accuracy.score_all(models, kinds, districts)
        return {kind: found[kind]["ridge"]["each"] for kind in kinds}

    here = figures()
    request.getfixturevalue("on_cluster")
    assert figures() == here


def test_work_that_kills_every_process_ends_with_an_error():
    with pytest.raises(processes.ProcessDiedError, match="died 3 times"):
        results(always_die, None, 2)


def test_without_a_cluster_at_the_address_the_error_says_so(monkeypatch):
    monkeypatch.setenv("HOUSING_CLUSTER", "tcp://127.0.0.1:9")
    monkeypatch.setattr(compute, "CONNECT_S", 1)
    get_settings.cache_clear()
    with pytest.raises(compute.ClusterError, match="cannot be reached"):
        results(times, 1, 2)
    get_settings.cache_clear()


def test_workers_that_die_between_two_rounds_are_replaced():
    with compute.crew(7, jobs=2) as work:
        assert dict(work(times, [(1,), (2,)])) == {0: 7, 1: 14}
        workers = [one for one in active_children() if one.name.startswith("SpawnProcess")]
        assert len(workers) >= 1
        for one in workers:
            one.kill()
            one.join()
        time.sleep(0.2)  # until the pool has seen it
        assert dict(work(times, [(3,)])) == {0: 21}
