"""A Dask cluster of separate processes for tests, and what its workers are given to do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from housing_lib.settings import PROJECT

PATHS = os.pathsep.join(str(PROJECT / folder) for folder in ("tests", "tests/benchmarks"))
START_S = 240  # on a machine that is busy with much else
# By default its processes look at themselves fifty times a second, which no test needs.
AT_REST = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
}
STORE_VARIABLES = ("HOUSING_TRACKING_URI", "MLFLOW_TRACKING_URI", "HOUSING_CLUSTER")


@dataclass(frozen=True)
class Cluster:
    """A scheduler's address, and its workers' processes."""

    address: str
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def running_cluster(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """A scheduler and workers of one thread each, ended with the block."""
    told = folder / "scheduler.json"
    scheduler = _start("scheduler", "--scheduler-file", str(told), "--host", "127.0.0.1",
                       "--port", "0", "--no-show", "--no-dashboard")  # fmt: skip
    started = []
    try:
        _wait(lambda: told.exists() and told.stat().st_size)
        for number in range(workers):
            started.append(
                _start("worker", "--scheduler-file", str(told), "--nthreads", "1", "--no-dashboard",
                       "--host", "127.0.0.1", "--local-directory", str(folder / str(number)))
            )  # fmt: skip
        yield Cluster(_address(told, workers), started)
    finally:
        end(*started)  # before the scheduler, whose answer they would wait for
        end(scheduler)


def end(*processes: "subprocess.Popen[bytes]") -> None:
    """Let processes end, and kill those that do not."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def kill_busy_worker(cluster: Cluster) -> int:
    """The process of a worker that was killed while it had a task; its nanny starts another."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        _wait(lambda: any(client.processing().values()))
        busy = next(worker for worker, tasks in client.processing().items() if tasks)
        (process,) = client.run(os.getpid, workers=[busy]).values()
    os.kill(process, signal.SIGKILL)
    return process


def _start(*arguments: str) -> "subprocess.Popen[bytes]":
    kept = {key: value for key, value in os.environ.items() if key not in STORE_VARIABLES}
    environment = kept | AT_REST | {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [str(Path(sys.executable).with_name("dask")), *arguments]
    return subprocess.Popen(command, env=environment, **quiet)


def _address(told: Path, workers: int) -> str:
    from distributed import Client

    with Client(scheduler_file=str(told), set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=START_S)
        return client.scheduler.address


def _wait(condition) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, f"nothing came up in {START_S} seconds"
        time.sleep(0.05)


def times(shared: int, number: int) -> int:
    """What a worker multiplies."""
    return shared * number


def die_once(marker: Path, number: int) -> int:
    """The number, from a worker that lives; the first one to be asked does not."""
    with suppress(FileExistsError):
        marker.touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def both_die(marker: Path, number: int) -> int:
    """The number, once two workers have been asked and ended together."""
    with suppress(FileExistsError):
        marker.with_suffix(f".{number}").touch(exist_ok=False)
        _wait(lambda: marker.with_suffix(".0").exists() and marker.with_suffix(".1").exists())
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def always_die(shared: object, number: int) -> None:
    """Nothing: the worker ends."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(shared: object, number: int) -> None:
    """Nothing: an error of the task's own."""
    raise ValueError(f"task {number} is wrong")


def sleep_a_minute(channel: object) -> None:
    """Do nothing for longer than anybody waits."""
    time.sleep(60)
