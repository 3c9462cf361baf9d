"""Speed of a program that was attached to and detached from, against its own before that.

Two processes of the same program work in turns, unit by unit. One of them is attached to and detached
from in the middle; the other tells what else has changed meanwhile: machine, caches, heat. Units are
short, and the quickest of two dozen neighbours, which nobody disturbed, over the other's is one figure.
Each figure after the detach is paired with one from before.

SPDX-License-Identifier: Apache-2.0
"""

import subprocess
import time

import measure
import settings
from table import figure

FIGURES = 24  # of each pair of processes
UNITS = 24  # to a figure
PAIRS = 25_000  # of malloc and free in a unit: some 2 ms
TRAIN = """import sys, time
import torch
torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1))
optimizer = torch.optim.SGD(model.parameters(), 1e-3)
x, y = torch.randn(16, 64), torch.randn(16, 1)
def step():
    optimizer.zero_grad()
    ((model(x) - y) ** 2).mean().backward()
    optimizer.step()
for _ in range(200):
    step()
print("ready", flush=True)
for line in sys.stdin:
    begun = time.process_time_ns()
    for _ in range(8):
        step()
    print(time.process_time_ns() - begun, flush=True)
"""


class Worker:
    """A process that does a unit when it is told to."""

    def __init__(self, command, env, cwd):
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      env=measure.clean_environment(env), cwd=cwd)
        if self.child.stdout.readline() != b"ready\n":
            raise measure.Failed("the program to attach to did not start")

    def begin(self):
        self.child.stdin.write(b"\n")
        self.child.stdin.flush()

    def end(self):
        text = self.child.stdout.readline()
        if not text:
            raise measure.Failed("the program that was attached to has ended")
        return int(text)

    def unit(self):
        self.begin()
        return self.end()

    def close(self):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait()


def figure_of(one, other):
    """CPU time of one over the other's: of their quickest units; each is first in every second turn."""
    mine, theirs = [], []
    for i in range(UNITS):
        if i % 2:
            theirs.append(other.unit())
            mine.append(one.unit())
        else:
            mine.append(one.unit())
            theirs.append(other.unit())
    return min(mine) / min(theirs)


def turns(one, other):
    return [figure_of(one, other) for _ in range(FIGURES)]


def driver(worker, cwd, *words):
    """memtrace on the worker, which goes on working: a silent one is not attached to."""
    asked = subprocess.Popen([f"{settings.B}/memtrace", words[0], str(worker.child.pid), *words[1:]],
                             cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    begun = time.monotonic()
    while asked.poll() is None and time.monotonic() - begun < 60:
        worker.unit()
    said = asked.stderr.read().decode("utf-8", "replace")
    asked.stderr.close()
    if asked.wait() != 0:
        raise measure.Failed(f"memtrace {words[0]}: {said.strip()}")


def one_pair(command, env, cwd):
    watched, other = Worker(command, env, cwd), Worker(command, env, cwd)
    try:
        turns(watched, other)  # warm
        before = turns(watched, other)
        driver(watched, cwd, "attach", "--out", f"{cwd}/detach.bin")
        for _ in range(3):
            watched.unit()
        driver(watched, cwd, "detach")
        turns(watched, other)
        return [after / b for after, b in zip(turns(watched, other), before)]
    finally:
        watched.close()
        other.close()


def measure_part(seconds):
    with measure.Folder() as cwd:
        with open(f"{cwd}/train.py", "w", encoding="utf-8") as f:
            f.write(TRAIN)
        dormant = {"LD_PRELOAD": settings.SHIM, "MEMTRACE_MODE": "dormant"}
        loop = [f"{settings.B}/bench/units", str(PAIRS)]
        train = [settings.PYTHON, f"{cwd}/train.py"]
        cases = [("a C loop", "injected", loop, {}), ("a C loop", "dormant", loop, dormant),
                 ("training steps", "injected", train, {}), ("training steps", "dormant", train, dormant)]
        series = measure.Series(
            {f"{what}, {how}": lambda c=command, e=env: one_pair(c, e, cwd)
             for what, how, command, env in cases}, seconds, ())
        return [figure("detach", f"{what} after a detach: CPU against before", how, "x",
                       [v for run in series.values(f"{what}, {how}", lambda r: r) for v in run],
                       "detach.speed",
                       series.why.get(f"{what}, {how}", ""), ratio=True)
                for what, how, _, _ in cases]
