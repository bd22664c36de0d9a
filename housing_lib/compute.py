"""Where many pieces of work are done: in processes of this machine, or on a Dask cluster."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Self

from housing_lib.errors import HousingError, OutageError
from housing_lib.processes import (
    ProcessDiedError,
    cores,
    kill_tree,
    one_blas_thread,
    use_environment,
)
from housing_lib.settings import get_settings

Work = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[tuple[int, Any]]]
ATTEMPTS = 3
CONNECT_S = 10


class ClusterError(OutageError):
    """A cluster that cannot be used now."""


class ClusterAddressError(HousingError):
    """An address that no cluster can have."""


def where(jobs: int | None = None) -> str:
    """The place where `each` works, in words."""
    cluster = get_settings().cluster
    count = jobs or cores()
    return cluster or ("this process" if count == 1 else f"{count} processes of this machine")


def each(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    shared: Any = None,
    jobs: int | None = None,
    threads: bool = False,
) -> Iterator[tuple[int, Any]]:
    """What `function(shared, *task)` returns, with the number of the task, as they end.

    See `crew`, which this asks once.

    Raises
    ------
    ProcessDiedError
        If the workers of a task died again and again.
    ClusterError
        If the cluster cannot be reached.
    """
    with crew(shared, jobs=min(jobs or cores(), len(tasks)), threads=threads) as work:
        yield from work(function, tasks)


@contextmanager
def crew(shared: Any = None, *, jobs: int | None = None, threads: bool = False) -> Iterator[Work]:
    """Workers that can be given tasks again and again: a function as `each`, for one `shared`.

    On the Dask cluster that `HOUSING_CLUSTER` names, or else in processes or
    threads of this machine. A task whose worker dies is given to another one, so it
    may run twice, and has to leave the same behind.

    Parameters
    ----------
    shared
        What every task needs; it is sent to each worker once.
    jobs
        Local processes; by default one a core. With one, all is done in this process.
    threads
        Whether threads of this process do, because the work lets go of Python's lock.

    Raises
    ------
    ProcessDiedError
        If the workers of a task died again and again.
    ClusterError
        If the cluster cannot be reached.
    """
    count = jobs or cores()
    if get_settings().cluster:
        with _cluster() as client, _Cluster(client, shared) as cluster:
            yield cluster.work
    elif count <= 1:
        yield partial(_here, shared)
    elif threads:
        with ThreadPoolExecutor(count) as pool:
            yield partial(_in_threads, pool, shared)
    else:
        with _Processes(count, shared) as processes:
            yield processes.work


def refuse_away() -> None:
    """Refuse to begin where the cluster that `HOUSING_CLUSTER` names cannot be used.

    Raises
    ------
    ClusterError
        If it cannot be reached, or has no workers.
    ClusterAddressError
        If there can be none at that address.
    """
    if get_settings().cluster:
        with _cluster():
            pass


def _here(
    shared: Any, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Any]]:
    for number, task in enumerate(tasks):
        with one_blas_thread():
            result = function(shared, *task)
        yield number, result


def _in_threads(
    pool: ThreadPoolExecutor,
    shared: Any,
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
) -> Iterator[tuple[int, Any]]:
    with one_blas_thread():
        futures = {pool.submit(function, shared, *task): n for n, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()


class _Processes:
    """Processes of this machine; where one dies, all are started anew."""

    def __init__(self, jobs: int, shared: Any) -> None:
        self.jobs = jobs
        self.shared = shared

    def __enter__(self) -> Self:
        # A fresh process is ready sooner than a fork server with the notebooks' imports.
        context = multiprocessing.get_context("spawn")
        given = (self.shared, dict(os.environ))
        self.pool = ProcessPoolExecutor(self.jobs, context, _keep, given)
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def work(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        def submit(task: tuple[Any, ...]) -> Future[Any]:
            return self.pool.submit(_call, function, task)

        def renew() -> None:
            self.__exit__()
            self.__enter__()

        yield from _until_done(submit, tasks, lost=BrokenProcessPool, renew=renew)


def _until_done(
    submit: Callable[[tuple[Any, ...]], Future[Any]],
    tasks: Sequence[tuple[Any, ...]],
    *,
    lost: type[BaseException],
    renew: Callable[[], None],
) -> Iterator[tuple[int, Any]]:
    """The results as they end; what was `lost` with its workers is asked of new ones."""
    left = set(range(len(tasks)))
    for _ in range(ATTEMPTS):
        try:
            futures = {submit(tasks[one]): one for one in sorted(left)}
            for future in as_completed(futures):
                result = future.result()
                left.discard(futures[future])
                yield futures[future], result
            return
        except lost:
            renew()
    raise ProcessDiedError(
        f"the processes that worked died {ATTEMPTS} times, for lack of memory perhaps. "
        "What is finished is kept; --jobs asks for fewer of them."
    )


_shared: list[Any] = []


def _keep(shared: Any, environment: dict[str, str]) -> None:
    use_environment(environment)
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _shared[:] = [shared]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        kill_tree(os.getpid())


def _call(function: Callable[..., Any], task: tuple[Any, ...]) -> Any:
    one_blas_thread()
    return function(_shared[0], *task)


class _Cluster:
    """The workers of a Dask cluster; one that dies costs its task another attempt."""

    def __init__(self, client: Any, shared: Any) -> None:
        self.client = client
        # As bytes: arrays that Dask takes apart itself come out read-only, which numba minds.
        self.content = pickle.dumps(shared)

    def __enter__(self) -> Self:
        self.pool = self.client.get_executor(pure=False)
        self._scatter()
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(wait=not any(error))

    def _scatter(self) -> None:
        self.shared = self.client.scatter(self.content, broadcast=True, hash=False)

    def work(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        from distributed import KilledWorker

        def submit(task: tuple[Any, ...]) -> Future[Any]:
            future: Future[Any] = self.pool.submit(_unpack_and_call, self.shared, function, task)
            return future

        try:  # tasks are cancelled if all workers die that held what they share
            yield from _until_done(submit, tasks, lost=CancelledError, renew=self._scatter)
        except KilledWorker as error:
            raise ProcessDiedError(f"{error} What is finished is kept.") from None


def _unpack_and_call(shared: bytes, function: Callable[..., Any], task: tuple[Any, ...]) -> Any:
    given = _unpacked(shared)
    one_blas_thread()  # for good: tasks side by side would give the threads back to each other
    return function(given, *task)


@lru_cache(maxsize=1)
def _unpacked(shared: bytes) -> Any:
    return pickle.loads(shared)


@contextmanager
def _cluster() -> Iterator[Any]:
    address = get_settings().cluster
    try:
        from distributed import Client
    except ImportError:
        raise ClusterError(
            "HOUSING_CLUSTER names a Dask cluster, and `distributed` is not installed: "
            "`make setup` brings it, elsewhere pip install -e '.[cluster]' in Housing's folder. "
            "Nothing was run."
        ) from None
    try:
        client = Client(  # type: ignore[no-untyped-call]
            address, timeout=CONNECT_S, set_as_default=False
        )
    except (OSError, ValueError) as error:
        kind = ClusterAddressError if isinstance(error, ValueError) else ClusterError
        raise kind(
            f"the Dask scheduler {address} cannot be reached: {error}. Expected an address as "
            "tcp://scheduler:8786 in HOUSING_CLUSTER. Nothing was run."
        ) from None
    with client:
        try:  # one that died is being started again
            client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            raise ClusterError(
                f"the Dask scheduler {address} has no workers. `dask worker {address}` starts one. "
                "Nothing was run."
            ) from None
        yield client
