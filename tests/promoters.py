"""Promoters that collide or are killed, in processes of their own; prints what came of it as JSON.

Run: HOUSING_ROOT=... python tests/promoters.py race|kill ROUNDS SEED. The root holds a store with
some versions. The gate's judgement is replaced by a quick "passed", so that what
is disturbed is the decision's way into the ledger and the stages.
"""

import contextlib
import json
import multiprocessing
import random
import sys
import time

from housing_lib import ledger, preload, registry  # noqa: F401

fork = multiprocessing.get_context("fork")


def ask(function, *arguments):
    """What a function returns, called in a process of its own: this one never opens the store."""
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: theirs.send(function(*arguments)))
    process.start()
    answer = ours.recv()
    process.join()
    return answer


def state():
    """What the aliases say, and after settling what the ledger says."""
    found = {stage: ledger.stage_version(stage) for stage in ledger.STAGES}
    ledger.settle()
    settled = {stage: ledger.stage_version(stage) for stage in ledger.STAGES}
    replayed = ledger.replay(ledger.history())
    return {
        "found": found,
        "settled": settled,
        "replayed": {stage: getattr(replayed, stage) for stage in ledger.STAGES},
        "line": len(ledger.history()),
        "damage": ledger.damage(),
    }


def act(command, version, ready, *, locked=True, answer=None):
    """Promote or roll back, after telling that everything is open; `ready` is waited for."""
    ledger.settle()

    def passed(version):
        if answer:
            ready.wait()
        metrics = {"test_rmse": 0.4, "gain": 0.1}
        return registry.Assessment(version, registry.stage_version("production"), [], metrics)

    registry.assess = passed
    if not locked:  # as two machines would be, which share no file
        ledger._lock = contextlib.nullcontext
    if not answer:
        ready.wait()
    decision = registry.promote(version) if command == "promote" else registry.rollback()
    if answer:
        answer.send(decision.decision)


def race(rounds, seed):
    """Two promoters of two versions, which decide at the same moment."""
    after = ask(state)
    for number in range(rounds):
        before = after
        challengers = [v for v in (1, 2, 3) if v != before["settled"]["production"]]
        together, pipes = fork.Barrier(2), [fork.Pipe(duplex=False) for _ in challengers]
        both = [
            fork.Process(
                target=act,
                args=("promote", version, together),
                kwargs={"locked": number % 2 == 0, "answer": pipe[1]},
            )
            for version, pipe in zip(challengers, pipes, strict=True)
        ]
        for process in both:
            process.start()
        said = [pipe[0].recv() for pipe in pipes]
        for process in both:
            process.join()
        after = ask(state)
        yield {"challengers": challengers, "said": said, "before": before, "after": after}


def kill(rounds, seed):
    """Promotions and rollbacks in turn, each killed at a moment of its own."""
    moments = random.Random(seed)
    whole = {command: _seconds(command) for command in ("promote", "rollback")}
    after = ask(state)
    for number in range(rounds):
        before, command = after, ("promote", "rollback")[number % 2]
        process = _start(command, before)
        time.sleep(moments.uniform(0, whole[command]))
        process.kill()
        process.join()
        after = ask(state)
        yield {"command": command, "before": before, "after": after}


def _start(command, before):
    target = next(v for v in (1, 2, 3) if v != before["settled"]["production"])
    ready = fork.Barrier(2)
    process = fork.Process(target=act, args=(command, target, ready))
    process.start()
    ready.wait()
    return process


def _seconds(command):
    process = _start(command, ask(state))
    started = time.perf_counter()
    process.join()
    return time.perf_counter() - started


if __name__ == "__main__":
    chosen = {"race": race, "kill": kill}[sys.argv[1]]
    print(json.dumps(list(chosen(int(sys.argv[2]), int(sys.argv[3])))))
