"""Promoters that collide or are killed, in processes of their own; prints what came of it as JSON.

Run: HOUSING_ROOT=... python tests/promoters.py race|kill ROUNDS SEED. The root holds a store with
the versions 1 to 3. The gate's judgement is replaced by a quick "passed", and
compiling by nothing, so that what is disturbed is the decision's way into the ledger and the
stages.
"""

import contextlib
import json
import multiprocessing
import random
import sys
import time

from housing_lib import deployment, ledger, preload, promotion, registry  # noqa: F401

fork = multiprocessing.get_context("fork")
VERSIONS = (1, 2, 3)


class Promoter:
    """A process that tells the state it found, waits for a word, and then acts."""

    def __init__(self, command="promote", place=0, meeting=None, locked=True):
        self.pipe, theirs = fork.Pipe()
        arguments = (theirs, command, place, meeting, locked)
        self.process = fork.Process(target=act, args=arguments)
        self.process.start()
        self.state = self.pipe.recv()

    def go(self):
        """Let it act."""
        self.pipe.send("go")

    def stop(self):
        """Kill it."""
        self.process.kill()
        self.process.join()


def act(pipe, command, place, meeting, locked):
    """Promote a version that does not stand in Production, or roll back, once told to."""
    found = state()
    if not locked:  # as two machines would be, which share no file
        ledger._lock = contextlib.nullcontext
    promotion.assess = lambda version: passed(version, meeting)
    deployment.publish = lambda version: "compiled before"
    others = [version for version in VERSIONS if version != found["settled"]["production"]]
    pipe.send(found)
    pipe.recv()
    decision = promotion.promote(others[place]) if command == "promote" else registry.rollback()
    pipe.send({"version": others[place], "decision": decision.decision})


def passed(version, meeting):
    """A gate that lets everything through, after all promoters have come to it."""
    if meeting:
        meeting.wait()
    metrics = {"test_rmse": 0.4, "gain": 0.1}
    return promotion.Assessment(version, registry.stage_version("production"), [], metrics)


def state():
    """What the aliases say, and after settling what they and the ledger say."""
    found = _stages()
    ledger.settle()
    replayed = ledger.replay(ledger.history())
    return {
        "found": found,
        "settled": _stages(),
        "replayed": {stage: getattr(replayed, stage) for stage in ledger.STAGES},
        "lines": len(ledger.history()),
        "damage": ledger.damage(),
    }


def _stages():
    return {stage: ledger.stage_version(stage) for stage in ledger.STAGES}


def race(rounds, seed):
    """Two promoters of two versions, which decide at the same moment; every other time unlocked."""
    for number in range(rounds):
        meeting = fork.Barrier(2)
        both = [Promoter("promote", place, meeting, number % 2 == 0) for place in (0, 1)]
        for promoter in both:
            promoter.go()
        said = [promoter.pipe.recv() for promoter in both]
        for promoter in both:
            promoter.process.join()
        yield {"before": both[0].state, "said": said}
    yield _last()


def kill(rounds, seed):
    """Promotions and rollbacks in turn, each killed at a moment of its own."""
    moments = random.Random(seed)
    whole_s = {command: _seconds(command) for command in ("promote", "rollback")}
    for number in range(rounds):
        command = ("promote", "rollback")[number % 2]
        promoter = Promoter(command)
        promoter.go()
        time.sleep(moments.uniform(0, whole_s[command]))
        promoter.stop()
        yield {"before": promoter.state}
    yield _last()


def _seconds(command):
    promoter = Promoter(command)
    started = time.perf_counter()
    promoter.go()
    promoter.pipe.recv()
    return time.perf_counter() - started


def _last():
    promoter = Promoter()
    promoter.stop()
    return {"before": promoter.state}


if __name__ == "__main__":
    chosen = {"race": race, "kill": kill}[sys.argv[1]]
    print(json.dumps(list(chosen(int(sys.argv[2]), int(sys.argv[3])))))
