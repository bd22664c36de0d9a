"""Where work is done: in a process of its own, so that nothing it does can harm the others."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Self

from housing_lib.settings import HousingError, get_settings

Work = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[tuple[int, Any]]]
ATTEMPTS = 3
CONNECT_S = 10
_living: dict[BaseProcess, Connection] = {}


class ProcessDiedError(HousingError):
    """A process that ended without an answer."""


class ClusterError(HousingError):
    """A cluster that cannot be used."""


class Channel:
    """The way from a called function back to its caller, who may say that it has to stop."""

    def __init__(self, connection: Connection) -> None:
        self.stopped = threading.Event()
        self.reason = ""
        self._connection = connection
        self._sending = threading.Lock()

    def __call__(self, *content: Any) -> None:
        """Send something to `on_message` of the caller."""
        self.send("message", content)

    def send(self, kind: str, content: Any) -> None:
        """Send a message, an answer or an error."""
        with self._sending:
            self._connection.send((kind, content))

    def listen(self) -> None:
        """Wait for the word to stop, and end with the caller, however that one ended."""
        parent = multiprocessing.parent_process()
        ends: list[Any] = [self._connection, *([parent.sentinel] if parent else [])]
        while True:
            for end in wait(ends):
                if end is not self._connection or not self._heard():
                    kill_tree(os.getpid())  # nothing may go on working behind the caller's back

    def _heard(self) -> bool:
        try:
            self.reason = self._connection.recv()
        except (EOFError, OSError):
            return False
        self.stopped.set()
        return True


def call_in_process(
    function: Callable[..., Any], *arguments: Any, on_message: Callable[..., None]
) -> Any:
    """What `function(*arguments, channel)` returns, called in a process of its own.

    Whatever the function sends through the `Channel` reaches `on_message`, and
    what it raises is raised here.

    Raises
    ------
    ProcessDiedError
        If the process ended without an answer, killed for lack of memory for example.
    """
    ours, theirs = multiprocessing.Pipe()
    process = _context().Process(  # type: ignore[attr-defined]
        target=_serve, args=(theirs, dict(os.environ), function, arguments)
    )
    process.start()
    _living[process] = ours
    theirs.close()
    try:
        return _receive(ours, process, on_message)
    finally:
        process.join(timeout=10)
        if process.is_alive():
            kill_tree(process.pid)
        _living.pop(process, None)


def stop_all(reason: str, *, grace_s: float) -> None:
    """End every process that `call_in_process` waits for, and all that they started.

    They are told why, and have some seconds to keep what they have.
    """
    for connection in list(_living.values()):
        with suppress(OSError):
            connection.send(reason)
    deadline = time.monotonic() + grace_s
    try:
        while _living and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for process in list(_living):
            kill_tree(process.pid)


def kill_tree(pid: int | None) -> None:
    """Kill a process and all that descend from it, also those that left its group."""
    import psutil

    if pid is None:
        return
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
        sessions = {_session(one.pid) for one in family if one.pid == _session(one.pid)}
        strays = [one for one in psutil.process_iter() if _session(one.pid) in sessions]
        for one in dict.fromkeys([*strays, *family]):  # itself last: it may be this very process
            with suppress(psutil.NoSuchProcess):
                one.kill()


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (AttributeError, OSError):
        return -1


def share_cores(*, jobs: int) -> None:
    """Let each of several jobs use its share of the cores, and no more.

    Two OpenMP fits at once on the same cores take many times as long.
    """
    if jobs > 1:
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // jobs))


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_blas_thread() -> Any:
    """Lets BLAS use one thread from now on; as a context manager, until its block ends.

    More threads add in another order, which shows in the last bit, and places have
    different numbers of them.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")


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
    """
    with crew(shared, jobs=min(jobs or cores(), len(tasks)), threads=threads) as work:
        yield from work(function, tasks)


@contextmanager
def crew(shared: Any = None, *, jobs: int | None = None, threads: bool = False) -> Iterator[Work]:
    """Workers that can be given tasks again and again: a function as `each`, for one `shared`.

    On the Dask cluster that `HOUSING_CLUSTER` names, or else in processes of this
    machine; both are `concurrent.futures` executors. A task whose worker dies is
    given to another one, so it may run twice, and has to leave the same behind.

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
        If a task outlived no worker.
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
        futures = {submit(tasks[one]): one for one in sorted(left)}
        try:
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
    _use_environment(environment)
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
            "pip install 'housing[cluster]'. Nothing was run."
        ) from None
    try:
        client = Client(  # type: ignore[no-untyped-call]
            address, timeout=CONNECT_S, set_as_default=False
        )
    except (OSError, ValueError) as error:
        raise ClusterError(
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


def _receive(connection: Connection, process: BaseProcess, on_message: Callable[..., None]) -> Any:
    while True:
        try:
            kind, content = connection.recv()
        except (EOFError, OSError):
            process.join()
            code = process.exitcode
            raise ProcessDiedError(f"the process ended without an answer ({code}).") from None
        if kind == "message":
            on_message(*content)
        elif kind == "error":
            raise content
        else:
            return content


def _serve(
    connection: Connection,
    environment: dict[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.setpgid(0, 0)  # Ctrl-C in the terminal is for the first process, which ends this one
    _use_environment(environment)
    channel = Channel(connection)
    threading.Thread(target=channel.listen, daemon=True).start()
    try:
        channel.send("answer", function(*arguments, channel))
    except HousingError as error:
        channel.send("error", error)
    except BaseException as error:
        channel.send("error", HousingError(f"{type(error).__name__}: {error}"))


def _use_environment(environment: dict[str, str]) -> None:
    # The fork server has the environment of an earlier moment.
    for name in set(os.environ) - set(environment):
        if name.startswith(("HOUSING_", "MLFLOW_TRACKING")):
            del os.environ[name]
    os.environ.update(environment)
    get_settings.cache_clear()


@lru_cache(maxsize=1)
def _context() -> BaseContext:
    # A fork server forks from a clean process that has the slow imports done already.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["housing_lib.preload"])
    return context
