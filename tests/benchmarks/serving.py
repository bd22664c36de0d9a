"""How fast the server answers, side by side with others that hold the same champion.

Each server runs on one core and the load on another; the servers take turns
within each round, and medians over the rounds are shown. The model is that in
Production here, or else the shipped champion, which takes some minutes to fit;
the store is copied, so nothing here is changed. Peers that gather requests, MLServer
and BentoML, take part where their commands are on the PATH: install one into an
environment of its own, with the packages of ours that the champion is made of.
Run: python tests/benchmarks/serving.py --help
"""

import argparse
import asyncio
import csv
import itertools
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import champion
import contenders
import psutil
import uvloop
from bars import Bar
from bars import show as show_bars
from contenders import CONTENDERS
from rich.console import Console
from rich.table import Table

from housing_lib.contract import FEATURES
from housing_lib.settings import PROJECT, get_settings

SERVER_CORE, LOAD_CORE = {0}, {1}
START_TIMEOUT_S = 120
SWAP_EVERY_S = 2.0
BULK_S = 10.0  # a batch of 10,000 takes the slowest peers several seconds
WARM_UP_S = 120
BESIDE_S = 14.0  # a batch takes several seconds where single requests leave it a tenth of the core
opener = build_opener(ProxyHandler({}))


class Connection(asyncio.Protocol):
    """One keep-alive connection that sends the next body when the answer is there."""

    def __init__(self, bodies, path, content_type, times):
        self.heads = (path, content_type)
        self.bodies, self.times = bodies, times
        self.failures, self.buffer, self.expected = 0, b"", 0

    def connection_made(self, transport):
        self.transport = transport
        self.send()

    def send(self):
        path, content_type = self.heads
        body = next(self.bodies)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
        self.started = time.perf_counter()
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def data_received(self, data):
        self.buffer += data
        if not self.expected:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            length = head.partition(b"content-length:")[2].split(b"\r\n")[0]
            self.expected = end + 4 + int(length)
            self.failures += not head.startswith(b"http/1.1 200")
        if len(self.buffer) >= self.expected:
            self.times.append(time.perf_counter() - self.started)
            self.buffer, self.expected = b"", 0
            if not self.transport.is_closing():
                self.send()


async def load(port, bodies, *, path, content_type, connections, seconds):
    """The times of all answers within these seconds, and how many were not 200."""
    loop, times, opened = asyncio.get_running_loop(), [], []
    for _ in range(connections):
        make = lambda: Connection(bodies, path, content_type, times)  # noqa: E731
        transport, protocol = await loop.create_connection(make, "127.0.0.1", port)
        opened.append((transport, protocol))
    await asyncio.sleep(seconds)
    for transport, _ in opened:
        transport.close()
    return times, sum(protocol.failures for _, protocol in opened)


@contextmanager
def running(name):
    """The port of a server on its core, its process and the seconds until its first answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    contender, environment = CONTENDERS[name], contenders.environment()
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        command = contender.command(port, Path(folder))
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=PROJECT,
            preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORE),
        )  # fmt: skip
        try:
            wait(process, port, contender.alive)
            seconds = time.perf_counter() - started
            settle(port, name)
            yield port, process, seconds
        finally:
            stop(process)


def wait(process, port, path):
    """Wait until the server answers."""
    deadline = time.perf_counter() + START_TIMEOUT_S
    while time.perf_counter() < deadline and process.poll() is None:
        try:
            opener.open(f"http://127.0.0.1:{port}{path}", timeout=5).read()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("a server did not start; try it by hand")


def settle(port, name):
    """Wait until our server has asked the registry for the first time."""
    while name == "housing":
        answer = opener.open(f"http://127.0.0.1:{port}{CONTENDERS[name].alive}", timeout=5).read()
        if json.loads(answer)["status"] == "ready":
            return
        time.sleep(0.2)


def stop(process):
    """End a server and what it started."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait(timeout=30)
    for child in children:
        if child.is_running():
            child.kill()


def busy_seconds(process):
    """The CPU time that the process which answers has used."""
    used = psutil.Process(process.pid).cpu_times()
    return used.user + used.system


def memory_mb(process):
    """The resident memory of the process that answers, and of its helpers."""
    family = [
        process.pid,
        *(one.pid for one in psutil.Process(process.pid).children(recursive=True)),
    ]
    sizes = [psutil.Process(pid).memory_info().rss / 1e6 for pid in family]
    return sizes[0], sum(sizes[1:])


def districts(count):
    """Real districts as numbers, from the bundled data."""
    with get_settings().raw_csv.open() as file:
        rows = itertools.islice(csv.DictReader(file), 0, None)
        return [{name: float(row[name]) for name in FEATURES} for row in rows][:count]


def single_bodies(name):
    """One body a district, again and again."""
    return itertools.cycle([CONTENDERS[name].one(row) for row in districts(2_000)])


def warm_up(port, name):
    """Ask until it answers: a peer without our compiled code makes it at its first answer."""
    asked = {"path": CONTENDERS[name].path, "content_type": "application/json", "connections": 4}
    for _ in range(WARM_UP_S):
        times, _ = uvloop.run(load(port, single_bodies(name), seconds=1.0, **asked))
        if times:
            return
    raise RuntimeError(f"{name} gave no answer in {WARM_UP_S} s")


def measure(port, process, name, connections, seconds):
    """Requests per second, median and 99th percentile in milliseconds, and CPU microseconds each.

    The CPU time says most on a machine that others use at the same time.
    """
    before = busy_seconds(process)
    path = CONTENDERS[name].path
    job = load(port, single_bodies(name), path=path, content_type="application/json",
               connections=connections, seconds=seconds)  # fmt: skip
    times, failures = uvloop.run(job)
    # BentoML refuses what it cannot answer within its bound; what a peer refused does not count.
    assert not failures or name in contenders.BATCHING, f"{failures} of {len(times)} failed"
    ordered = sorted(times)
    p99 = ordered[int(0.99 * len(ordered))]
    each = (busy_seconds(process) - before) / len(times) * 1e6
    answered = (len(times) - failures) / seconds
    return answered, statistics.median(ordered) * 1e3, p99 * 1e3, each


def measure_batch(port, name, rows):
    """Batches per second over one connection."""
    path = CONTENDERS[name].batch_path or CONTENDERS[name].path
    body = CONTENDERS[name].many(districts(rows))
    job = load(port, itertools.repeat(body), path=path, content_type="application/json",
               connections=1, seconds=BULK_S)  # fmt: skip
    times, failures = uvloop.run(job)
    assert times
    assert not failures or name in contenders.BATCHING, f"{failures} of {len(times)} failed"
    return 1 / statistics.median(times) if not failures else (len(times) - failures) / BULK_S


async def while_swapping(port, connections, seconds):
    """The times of single requests while Production goes back and forth between two versions."""
    job = asyncio.create_task(
        load(port, single_bodies("housing"), path="/predict", content_type="application/json",
             connections=connections, seconds=seconds)
    )  # fmt: skip
    swaps = await asyncio.to_thread(champion.move_until, lambda: job.done(), SWAP_EVERY_S)
    times, failures = await job
    assert not failures
    return sorted(times)[int(0.99 * len(times))] * 1e3, swaps


async def beside_batches(port, connections, rows, seconds):
    """The times of single requests while another client sends batches."""
    single = load(port, single_bodies("housing"), path="/predict", content_type="application/json",
                  connections=connections, seconds=seconds)  # fmt: skip
    bulk = load(port, itertools.repeat(contenders.listed(districts(rows))), path="/predict/batch",
                content_type="application/json", connections=1, seconds=seconds)  # fmt: skip
    (times, failures), (batches, refused) = await asyncio.gather(single, bulk)
    assert batches
    assert not failures + refused
    ordered = sorted(times)
    return len(batches) / seconds, ordered[int(0.99 * len(ordered))] * 1e3


def main():
    """Run all in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", default=",".join(contenders.found()), help="by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="a round and server")
    parser.add_argument("--connections", default="1,16,64", help="by commas")
    parser.add_argument("--rows", type=int, default=10_000, help="districts a batch")
    chosen = parser.parse_args()
    champion.use_own_store()
    os.sched_setaffinity(0, LOAD_CORE)
    counts = [int(one) for one in chosen.connections.split(",")]
    found = {name: [] for name in chosen.servers.split(",")}
    for _ in range(chosen.rounds):
        for name, rows in found.items():
            rows.append(one_round(name, counts, chosen))
    show(found, counts)


def one_round(name, counts, chosen):
    """All figures of one server, started anew."""
    with running(name) as (port, process, start):
        warm_up(port, name)
        figures = {"start s": start}
        for count in counts:
            measured = measure(port, process, name, count, chosen.seconds)
            names = ("req/s", "p50 ms", "p99 ms", "CPU us")
            figures |= {f"{count}: {key}": one for key, one in zip(names, measured, strict=True)}
        if CONTENDERS[name].many:
            figures["batches/s"] = measure_batch(port, name, chosen.rows)
        if name == "housing":
            beside = uvloop.run(beside_batches(port, 16, chosen.rows, BESIDE_S))
            figures |= {"beside 16: batches/s": beside[0], "16 beside batches: p99 ms": beside[1]}
            swapping = uvloop.run(while_swapping(port, 16, 3 * SWAP_EVERY_S))
            figures |= {"16 while swapped: p99 ms": swapping[0], "swaps": swapping[1]}
        own, helpers = memory_mb(process)
        return figures | {"memory MB": own, "helpers MB": helpers}


def show(found, counts):
    """Print the table of medians, and the ratios that count."""
    shown = Table(title=f"medians of {len(next(iter(found.values())))} rounds, one worker")
    shown.add_column("measure")
    medians = {}
    for name, rounds in found.items():
        shown.add_column(name, justify="right")
        medians[name] = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    for key in medians[next(iter(found))]:
        cells = (medians[name].get(key) for name in found)
        shown.add_row(key, *("" if value is None else f"{value:,.2f}" for value in cells))
    Console(width=100).print(shown)
    if "housing" in medians:
        show_bars("The server", targets(medians))


def targets(medians):
    """Each target whose figures were measured."""
    ours = medians["housing"]
    wanted = [
        ("16 connections, requests/s against MLflow's server", "mlflow", "16: req/s", 50),
        ("16 connections, requests/s against FastAPI's ceiling", "ceiling", "16: req/s", 0.8),
        ("10,000-row batches/s against MLflow's server", "mlflow", "batches/s", 5),
    ]
    peers = [name for name in contenders.BATCHING if "64: req/s" in medians.get(name, {})]
    if peers:
        best = max(peers, key=lambda name: medians[name]["64: req/s"])
        wanted.append((f"64 connections, requests/s against {best}'s", best, "64: req/s", 5))
    for measure, peer, key, target in wanted:
        if key in medians.get(peer, {}) and key in ours:
            mine, theirs = ours[key], medians[peer][key]
            digits = 0 if theirs > 10 else 2
            told = {"ours": f"{mine:,.{digits}f}/s", "peer": f"{theirs:,.{digits}f}/s"}
            yield Bar(measure, mine / theirs, "≥", target, **told)
    constant = medians.get("ceiling", {}).get("16: p99 ms")
    beside = f" (FastAPI's ceiling: {constant:.1f})" if constant else ""
    bounds = [
        ("median at 1 connection", "1: p50 ms", 1, "ms"),
        (f"p99 at 16 connections{beside}", "16: p99 ms", 10, "ms"),
        ("p99 at 16 connections beside batches", "16 beside batches: p99 ms", 10, "ms"),
        ("p99 at 16 connections while models are swapped", "16 while swapped: p99 ms", 10, "ms"),
        ("memory of one worker", "memory MB", 350, "MB"),
        ("start to first answer", "start s", 4, "s"),
    ]
    for measure, key, target, unit in bounds:
        if key in ours:
            yield Bar(measure, ours[key], "≤", target, unit)


if __name__ == "__main__":
    main()
