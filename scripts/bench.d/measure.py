"""Runs one program and says what it took. Rounds of several, interleaved.

SPDX-License-Identifier: Apache-2.0
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import settings


class Failed(Exception):
    """A run that gives no figure; the text says why."""


class NotBuilt(Failed):
    """What was asked of the shim is not what it did."""


class Late(Exception):
    """A run's time is up."""


class Run:
    """What one run took: out, wall, cpu (with children waited for), instructions."""

    def __init__(self, out, wall, usage, instructions):
        self.out = out
        self.wall = wall
        self.cpu = usage.ru_utime + usage.ru_stime
        self.instructions = instructions


def progress(text):
    print(text, file=sys.stderr, flush=True)


def clean_environment(more):
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("MEMTRACE_") and k not in ("LD_PRELOAD", "MALLOC_CONF")}
    env.update(more)
    return env


def high_water(pid, so_far):
    """VmHWM. Not wait4's ru_maxrss: that has the memory of whoever forked the program in it."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
            found = [int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM")]
    except OSError:
        found = []
    return max(so_far, *found, 0)


def listen(child, deadline, at, peak):
    """Its standard output to the end. A line "@name" calls at(name, pid) and is answered.

    peak: None, or a list of one number, which is kept at the program's peak memory.
    """
    out, pending = [], b""
    while True:
        left = max(0, deadline - time.monotonic())
        ready, _, _ = select.select([child.stdout], [], [], left if peak is None else min(left, 0.01))
        if peak is not None:
            peak[0] = high_water(child.pid, peak[0])
        if not ready and left:
            continue
        if not ready:
            raise Late()
        piece = os.read(child.stdout.fileno(), 65536)
        if not piece:
            return b"".join(out).decode("utf-8", "replace")
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            if not line.startswith(b"@"):
                out.append(line + b"\n")
            elif at:
                at(line[1:].decode(), child.pid)
                child.stdin.write(b"\n")
                child.stdin.flush()


def reap(child, deadline):
    """wait4 with an end: what has closed its output may still not end."""
    while time.monotonic() < deadline:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return usage
        time.sleep(0.002)
    raise Late()


def end(child):
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if child.returncode is None:
        child.wait()
    child.stdout.close()
    child.stdin.close()


def run(command, env, cwd, limit=120, at=None, count=False, peak=None):
    """Runs command; raises Failed if it fails or is not over after limit seconds."""
    counted = os.path.join(cwd, "instructions")
    if count and counts_instructions():
        command = [settings.PERF, "stat", "-x,", "-e", "instructions:u", "-o", counted, *command]
    env = clean_environment(dict(env, INTERACTIVE="1" if at else "0"))
    with tempfile.TemporaryFile() as err:
        began = time.monotonic()
        child = subprocess.Popen(command, env=env, cwd=cwd, start_new_session=True, stderr=err,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            out = listen(child, began + limit, at, peak)
            usage = reap(child, began + limit)
        except Late:
            raise Failed(f"not over after {limit:.0f} s, killed") from None
        finally:
            end(child)
        wall = time.monotonic() - began
        if child.returncode:
            err.seek(0)
            said = err.read().decode("utf-8", "replace").strip().splitlines() or [""]
            raise Failed(f"{os.path.basename(command[0])} ended with {child.returncode}: {said[-1][:120]}")
    return Run(out, wall, usage, read_instructions(counted) if count else None)


_instructions = None


def counts_instructions():
    """Does this machine let perf count instructions? Virtual machines often do not."""
    global _instructions
    if _instructions is None:
        _instructions = False
        if settings.PERF:
            done = subprocess.run([settings.PERF, "stat", "-x,", "-e", "instructions:u", "true"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            _instructions = done.returncode == 0 and done.stderr.split(",")[0].isdigit()
    return _instructions


def read_instructions(path):
    try:
        with open(path, encoding="utf-8") as f:
            fields = [line.split(",")[0] for line in f if "instructions" in line]
        return int(fields[0])
    except (OSError, ValueError, IndexError):
        return None


class Folder:
    """A folder of its own for a part's traces, gone afterwards."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="memtrace-bench.", dir=settings.DIR)
        return self.path

    def __exit__(self, *unused):
        shutil.rmtree(self.path, ignore_errors=True)


class Series:
    """Rounds of one run of every case, in turn: what a noisy machine does, it does to all.

    cases: name -> function() giving a dict of figures. A case of `few` joins the first PEER_ROUNDS
    rounds only. One that fails twice, or is not built, is left out from there on; why[name] says so.
    Rounds end with the time given; three are made even if that takes twice the time.
    """

    def __init__(self, cases, seconds, few=(), rounds=None):
        self.rounds, self.why, self.failures = [], {}, {}
        began, wanted = time.monotonic(), rounds or settings.ROUNDS
        while len(self.rounds) < wanted:
            spent = (time.monotonic() - began) / max(1e-9, seconds)
            number = len(self.rounds)
            each = spent / max(1, number)
            if number >= 3 and spent + each > 1 or number and spent > 2:
                break
            with_few = not number or (number < settings.PEER_ROUNDS and spent < 0.5)
            self.rounds.append(self.one_round(cases, few, number, with_few))

    def one_round(self, cases, few, number, with_few):
        names = [n for n in cases if self.failures.get(n, 0) < 2 and (with_few or n not in few)]
        shift = number % len(names) if names else 0
        figures = {}
        for name in names[shift:] + names[:shift]:  # nobody always comes first
            try:
                figures[name] = cases[name]()
            except Failed as e:
                hopeless = isinstance(e, NotBuilt) or name in few
                self.failures[name] = self.failures.get(name, 0) + (2 if hopeless else 1)
                self.why[name] = str(e)
                progress(f"    {name}: {e}")
        return figures

    def pairs(self, name, base, combine):
        """combine(figures, base's figures) of every round that has both; None is left out."""
        values = [combine(r[name], r[base]) for r in self.rounds if name in r and base in r]
        return [v for v in values if v is not None]

    def values(self, name, pick):
        values = [pick(r[name]) for r in self.rounds if name in r]
        return [v for v in values if v is not None]
