"""Speed of a program that was attached to and detached from, against its own before that.

Two processes of the same program work in turns, some milliseconds each. One of them is attached to and
detached from in the middle; the other tells what else has changed meanwhile: machine, caches, heat. What
counts is the unit that only one in fifty of a process's was quicker than, which nobody disturbed: the one
process's over the other's is their ratio, and that after the detach over that before is one figure. Every
figure has two processes of its own. Where it is allowed they have a higher priority than others, so that
who else works here does not empty their caches in the middle of a unit.

Numbers and quantile were chosen on pairs of which none was attached to: with two CPUs and a load of 14 of
others those figures have a standard deviation of 0.2 % (C loop) and 0.6 % (training).

Instructions are counted one by one (tests/bench/steps.c), so nothing disturbs that count.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import subprocess
import time

import measure
import settings
from table import figure

TURNS = 60
UNITS = 6  # to a turn
QUICKER = 0.02  # of the units, than the one that counts
PRIORITY = -10
PAIRS = 6000  # of malloc and free in a unit: some 60 us
STEPPED = 100  # of them in a unit whose instructions are counted
TOGETHER = 7  # pairs of processes of one kind in a round
COUNTED = 2  # of those whose instructions are counted: all are the same but for a few
ROUNDS = 3
TRAIN = """import gc, os, sys, time
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
def work(asked, answers):
    for line in asked:
        spent = []
        for _ in range(int(line)):
            begun = time.process_time_ns()
            step()
            spent.append(time.process_time_ns() - begun)
        print(*spent, file=answers, flush=True)
for _ in range(50):
    step()
gc.disable()
print("ready", flush=True)
for line in sys.stdin:  # two paths: a process that works for whoever has these
    if not os.fork():
        asked, answers = line.split()
        with open(asked) as asked, open(answers, "w") as answers:
            print(os.getpid(), file=answers, flush=True)
            work(asked, answers)
        os._exit(0)
    os.waitpid(-1, os.WNOHANG)
"""


class Worker:
    """A process that does as many units as it is told to. turns: of each, before and after."""

    turns = TURNS

    def __init__(self, pid, asked, answers):
        self.pid, self.asked, self.answers = pid, asked, answers

    def work(self, units=UNITS):
        self.asked.write(b"%d\n" % units)
        self.asked.flush()
        text = self.answers.readline()
        if not text:
            raise measure.Failed("the program that was attached to has ended")
        return [int(word) for word in text.split()]

    def instructions(self, units):
        done = subprocess.run([f"{settings.B}/bench/steps", str(self.pid), str(units)],
                              stdin=self.answers, stdout=self.asked, stderr=subprocess.PIPE)
        if done.returncode:
            raise measure.Failed(done.stderr.decode("utf-8", "replace").strip())
        return int(done.stderr)

    def close(self):
        self.asked.close()
        self.answers.close()


class Loop(Worker):
    """The C loop: a fresh process each time. Its units are a quarter as long."""

    turns = 4 * TURNS

    def __init__(self, env, cwd, pairs=PAIRS):
        self.child = start([f"{settings.B}/bench/units", str(pairs)], env, cwd)
        super().__init__(self.child.pid, self.child.stdin, self.child.stdout)

    def close(self):
        super().close()
        self.child.wait()


class Trainer:
    """A process that has imported torch and does nothing but fork workers."""

    def __init__(self, env, cwd):
        with open(f"{cwd}/train.py", "w", encoding="utf-8") as f:
            f.write(TRAIN)
        self.child = start([settings.PYTHON, f"{cwd}/train.py"], env, cwd)
        self.cwd, self.workers = cwd, 0

    def worker(self):
        self.workers += 1
        paths = [f"{self.cwd}/{name}{self.child.pid}.{self.workers}" for name in ("asked", "answers")]
        for path in paths:
            os.mkfifo(path)
        self.child.stdin.write(" ".join(paths).encode() + b"\n")
        self.child.stdin.flush()
        asked, answers = open(paths[0], "wb"), open(paths[1], "rb")
        return Worker(int(answers.readline()), asked, answers)

    def close(self):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait()


def raise_priority():
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    except OSError:
        pass  # only root may


def start(command, env, cwd):
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             env=measure.clean_environment(env), cwd=cwd, preexec_fn=raise_priority)
    if child.stdout.readline() != b"ready\n":
        raise measure.Failed("the program to attach to did not start")
    return child


def speed(one, other):
    """The one's undisturbed unit over the other's; each of the two is first in every second turn."""
    spent = {one: [], other: []}
    for i in range(one.turns):
        for worker in (one, other) if i % 2 else (other, one):
            spent[worker] += worker.work()
    return quick(spent[one]) / quick(spent[other])


def quick(values):
    return sorted(values)[int(len(values) * QUICKER)]


def driver(worker, cwd, *words, units=1):
    """memtrace on the worker, which goes on working: a silent one is not attached to, nor one that is
    inside libc at each look."""
    asked = subprocess.Popen([f"{settings.B}/memtrace", words[0], str(worker.pid), *words[1:]],
                             cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    begun = time.monotonic()
    while asked.poll() is None and time.monotonic() - begun < 60:
        worker.work(units)
    said = asked.stderr.read().decode("utf-8", "replace")
    asked.stderr.close()
    if asked.wait() != 0:
        raise measure.Failed(f"memtrace {words[0]}: {said.strip()}")


def attach_and_detach(worker, cwd):
    """Recorded for a while in between: what it did then is in the trace, or there is no figure."""
    trace = f"{cwd}/detach.bin"
    driver(worker, cwd, "attach", "--out", trace)
    for _ in range(20):
        worker.work()
    driver(worker, cwd, "detach")
    told = subprocess.run([settings.REPORT, "--json", "--no-symbols", trace], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False).stdout
    if not told or json.loads(told)["trace"]["allocations"] < 1000:
        raise measure.Failed("the program was attached to and not recorded")
    os.unlink(trace)


def speed_after(make, cwd):
    watched, other = make(), make()
    try:
        for _ in range(watched.turns):  # warm
            watched.work(), other.work()
        before = speed(watched, other)
        attach_and_detach(watched, cwd)
        for _ in range(watched.turns // 4):
            watched.work(), other.work()
        return speed(watched, other) / before
    finally:
        watched.close()
        other.close()


def of_loop(env, cwd):
    return [speed_after(lambda: Loop(env, cwd), cwd) for _ in range(TOGETHER)]


def of_training(env, cwd):
    trainer = Trainer(env, cwd)
    try:
        return [speed_after(trainer.worker, cwd) for _ in range(TOGETHER)]
    finally:
        trainer.close()


def per_pair(loop):
    """What a unit more takes, of a loop that is warm."""
    loop.work(3)
    return (loop.instructions(2) - loop.instructions(1)) / STEPPED


def of_instructions(env, cwd):
    return [instructions(env, cwd) for _ in range(COUNTED)]


def instructions(env, cwd):
    """Of a pair: without the shim, before the attach, after the detach."""
    plain, loop = Loop({}, cwd, STEPPED), Loop(env, cwd, STEPPED)
    try:
        without, before = per_pair(plain), per_pair(loop)
        driver(loop, cwd, "attach", "--out", f"{cwd}/detach.bin", units=500)
        driver(loop, cwd, "detach", units=500)
        return without, before, per_pair(loop)
    finally:
        plain.close()
        loop.close()


def rows_of(series, how):
    def figures(what):  # of all rounds
        return [v for run in series.values(f"{what}, {how}", lambda r: r) for v in run]

    counts = figures("instructions")
    return [figure("detach", "a C loop after a detach: CPU against before", how, "x",
                   figures("loop"), "detach.speed", series.why.get(f"loop, {how}", ""), ratio=True),
            figure("detach", "training steps after a detach: CPU against before", how, "x",
                   figures("training"), "detach.speed", series.why.get(f"training, {how}", ""),
                   ratio=True),
            figure("detach", "malloc and free after a detach: instructions against before", how, "x",
                   [after / before for _, before, after in counts], "detach.speed",
                   series.why.get(f"instructions, {how}", ""), ratio=True),
            figure("detach", "malloc and free after a detach: instructions more than without the shim",
                   how, "", [after - without for without, _, after in counts],
                   note=series.why.get(f"instructions, {how}", ""))]


def measure_part(seconds):
    with measure.Folder() as cwd:
        environments = {"injected": {},
                        "dormant": {"LD_PRELOAD": settings.SHIM, "MEMTRACE_MODE": "dormant"}}
        cases = {}
        for how, env in environments.items():
            cases[f"loop, {how}"] = lambda env=env: of_loop(env, cwd)
            cases[f"training, {how}"] = lambda env=env: of_training(env, cwd)
            cases[f"instructions, {how}"] = lambda env=env: of_instructions(env, cwd)
        series = measure.Series(cases, seconds, (), ROUNDS)
        return [row for how in environments for row in rows_of(series, how)]
