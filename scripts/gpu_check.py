"""The checks of scripts/gpu-check: each runs a small program with and without the shim and compares the
trace with the program's own numbers. Prints one table. Standard library only; the programs need
PyTorch, and what else is missing skips its row.

    gpu_check.py FOLDER              on a machine with a GPU
    gpu_check.py FOLDER --self-test  the same machinery over the fakes, with one truth that is wrong

A program says what is true at a moment by a mark "truth ALLOCATED RESERVED" (PyTorch's own numbers), which
lands in the trace among the events; they are then added up to there.

SPDX-License-Identifier: Apache-2.0
"""
import json
import os
import subprocess
import sys
import time

BUILD = os.environ["B"]
SHIM = os.path.join(BUILD, "libmemtrace.so")
REPORT = os.path.join(BUILD, "memtrace-report")
LIMIT_S = 90  # of one run
ALL_S = 540  # what comes later is skipped
HERE = os.path.dirname(os.path.abspath(__file__))
TENSOR, DEVICE, PINNED, MANAGED = 7, 4, 5, 6


# ---- what a trace says ------------------------------------------------------------------------------

def records(trace):
    out = subprocess.run([REPORT, "dump", "--json", trace], capture_output=True, text=True, timeout=LIMIT_S)
    lines = [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]
    return sorted((r for r in lines if "t" in r), key=lambda r: r["t"])


class Memory:
    """The driver's memory and the tensors in it, from records in order of time."""

    def __init__(self):
        self.blocks, self.tensors = {}, {}  # addr: size
        self.physical, self.maps = {}, {}  # handle: [size, references, mappings]; addr: (size, entry)
        self.kinds = {}

    def add(self, r):
        kind = r["record"]
        if kind == "gpu_take" and not r["flags"] & 9 and r["kind"] in (DEVICE, MANAGED):
            self.blocks[r["addr"]] = r["size"]
        elif kind == "gpu_give":
            self.blocks.pop(r["addr"], None)
        elif kind == "gpu_vmm":
            self.vmm(r)
        elif kind in ("alloc", "survivor") and r["kind"] & 15 == TENSOR:
            self.tensors[r["addr"]] = r["size"]
        elif kind == "free" and r["kind"] & 15 == TENSOR:
            self.tensors.pop(r["addr"], None)

    def vmm(self, r):
        if r["op"] == 0 and r["device"]:
            self.physical[r["handle"]] = [r["size"], 1, 0]
        elif r["op"] == 3 and r["handle"] in self.physical:
            self.physical[r["handle"]][1] -= 1
        elif r["op"] == 4 and r["handle"] in self.physical:
            entry = self.physical[r["handle"]]
            entry[2] += 1
            self.maps[r["addr"]] = (r["size"], entry)
        elif r["op"] == 5:
            for addr in [a for a in self.maps if r["addr"] <= a < r["addr"] + r["size"]]:
                self.maps.pop(addr)[1][2] -= 1
        self.physical = {h: e for h, e in self.physical.items() if e[1] or e[2]}

    def totals(self):
        mapped = sum(size for size, _ in self.maps.values())
        places = sorted(list(self.blocks.items()) + [(a, s) for a, (s, _) in self.maps.items()])
        starts = [a for a, _ in places]
        inside = 0
        from bisect import bisect_right
        for addr, size in self.tensors.items():  # a tensor elsewhere is on the host
            i = bisect_right(starts, addr) - 1
            if i >= 0 and addr < places[i][0] + places[i][1]:
                inside += size
        return inside, sum(self.blocks.values()) + mapped


def compare_truths(folder, others):
    """Of every mark "truth A R": (count, the first that does not hold). others: reserved may be more."""
    memories, count = {}, 0
    for r in records(os.path.join(folder, "trace.bin")):
        memory = memories.setdefault(r["proc"], Memory())
        memory.add(r)
        words = r.get("label", "").split() if r["record"] == "mark" else []
        if len(words) != 3 or words[0] != "truth":
            continue
        truth, mine = (int(words[1]), int(words[2])), memory.totals()
        if mine[0] != truth[0] or mine[1] < truth[1] or (mine[1] != truth[1] and not others):
            return count, "at mark %d the trace has %s, the program %s" % (count + 1, mine, truth)
        count += 1
    return count, None


def report(folder):
    out = subprocess.run([REPORT, "--json", "--no-symbols", os.path.join(folder, "trace.bin")],
                         capture_output=True, text=True, timeout=LIMIT_S)
    return json.loads(out.stdout)


def names(folder):
    for r in records(os.path.join(folder, "trace.bin")):
        if r["record"] == "fact" and r["key"] == "cuda_names":
            return r["value"]
    return "none"


# ---- programs ---------------------------------------------------------------------------------------

HEAD = """
import ctypes, os, sys, time, torch
d = 'cuda'
mark = getattr(ctypes.CDLL(None), 'memtrace_mark', lambda text: None)
def truth():
    torch.cuda.synchronize()
    mark(b'truth %d %d' % (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
"""
END = "\ntruth()\nsys.stdout.flush()\n"
TIMED = """
def run(step, n):
    for i in range(5): step(); truth()
    torch.cuda.synchronize(); t = time.perf_counter()
    for i in range(n): step()
    torch.cuda.synchronize(); print('STEP', (time.perf_counter() - t) / n); truth()
"""
GPT = HEAD + TIMED + """
m = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True), 4).to(d)
o = torch.optim.AdamW(m.parameters()); x = torch.randn(8, 128, 256, device=d)
def step(): o.zero_grad(); m(x).square().mean().backward(); o.step()
run(step, 100)
"""
RESNET = HEAD + TIMED + """
class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = (torch.nn.Conv2d(64, 64, 3, padding=1) for i in range(2))
    def forward(self, x): return torch.relu(x + self.b(torch.relu(self.a(x))))
m = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 7, 2, 3), *[Block() for i in range(8)]).to(d)
o = torch.optim.SGD(m.parameters(), 0.01)
def step(): o.zero_grad(); m(torch.randn(16, 3, 64, 64, device=d)).mean().backward(); o.step()
run(step, 60)
"""
PIN = HEAD + """
keep = [torch.empty(n * 100000, pin_memory=True) for n in range(1, 20)]
x = torch.ones(1000, device=d)
base = keep[-1].data_ptr(); lines = open('/proc/self/smaps').read().split('\\n')
for i, l in enumerate(lines):
    head = l.split(' ')[0].split('-')
    if len(head) == 2 and int(head[0], 16) <= base < int(head[1], 16):
        print('SMAPS', l.split()[-1], [w for w in lines[i:i + 25] if w.startswith(('Rss', 'VmFlags'))])
"""
LOADER = HEAD + """
from torch.utils.data import DataLoader, TensorDataset
for x, in DataLoader(TensorDataset(torch.randn(512, 1000)), 32, num_workers=2, pin_memory=True): x.to(d); truth()
"""
GRAPH = HEAD + """
x = torch.ones(1 << 20, device=d); g = torch.cuda.CUDAGraph(); s = torch.cuda.Stream()
with torch.cuda.stream(s): y = x * 2
torch.cuda.synchronize()
with torch.cuda.graph(g): y = x * 2 + 1
for i in range(10): g.replay()
"""
FORK = HEAD + """
x = torch.ones(1 << 20, device=d); pid = os.fork()
if pid == 0: a = [bytearray(1000) for i in range(1000)]; os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
y = x + 1
"""
PROFILER = GPT.replace("run(step, 100)", """
step()
with torch.profiler.profile(profile_memory=True) as p:
    for i in range(3): step()
assert len(p.key_averages())""")
NCCL = HEAD + """
os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT='29555')
torch.distributed.init_process_group('nccl', rank=0, world_size=1)
x = torch.ones(1 << 20, device=d); torch.distributed.all_reduce(x); torch.cuda.synchronize()
"""
OOM = HEAD + """
x = torch.ones(1 << 20, device=d)
try: torch.empty(1 << 45, dtype=torch.uint8, device=d); sys.exit(3)
except torch.OutOfMemoryError: pass
"""
IPC = HEAD + """
import torch.multiprocessing as mp
def child(q): x = q.get(); assert x.sum().item() == 1 << 20; del x
if __name__ == '__main__':
    mp.set_start_method('spawn'); q = mp.Queue(); x = torch.ones(1 << 20, device=d)
    p = mp.Process(target=child, args=(q,)); p.start(); q.put(x); p.join(); assert p.exitcode == 0; truth()
"""
NVTX = HEAD + """
torch.cuda.nvtx.range_push('phase-one'); x = torch.ones(1 << 20, device=d); torch.cuda.nvtx.range_pop()
"""
SEEN = HEAD + """
x = torch.ones(1 << 20, device=d); time.sleep(15)
"""
NVML = HEAD + """
assert ctypes.CDLL('libnvidia-ml.so.1').nvmlInit_v2() == 0
for i in range(30): x = torch.ones(1 << 20, device=d); x = None; torch.cuda.empty_cache(); time.sleep(0.1)
"""
JAX = """
import sys
try: import jax, jax.numpy as jnp
except ImportError: sys.exit(77)
if not any(d.platform == 'gpu' for d in jax.devices()): sys.exit(77)
jnp.ones((1024, 1024)).sum().block_until_ready()
"""
CUPY = """
import sys
try: import cupy
except ImportError: sys.exit(77)
x = cupy.ones(1 << 20); x.sum().get()
"""

ASYNC = {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}
EXPANDABLE = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


# name, program, environment, how PyTorch's numbers are held: "equal" to the byte; "others": what is not
# PyTorch's may be reserved beside it; "bytes": no numbers of its own, but memory must be seen; "run":
# that, under `memtrace run`, which must have been told by NVML of more than was taken
CHECKS = [
    ("small GPT, each step", GPT, {}, "others"),
    ("ResNet, each step (cuDNN)", RESNET, {}, "others"),
    ("expandable segments", GPT, EXPANDABLE, "others"),
    ("backend cudaMallocAsync", GPT, ASYNC, "bytes"),
    ("no caching", RESNET, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, "bytes"),
    ("pinned memory", PIN, {}, "others"),
    ("DataLoader with pin_memory", LOADER, {}, "others"),
    ("CUDA graph", GRAPH, {}, "others"),
    ("fork after use", FORK, {}, "others"),
    ("NCCL, one rank", NCCL, {}, "others"),
    ("out of memory", OOM, {}, "others"),
    ("CUDA IPC", IPC, {}, "others"),
    ("NVTX range", NVTX, {}, "others"),
    ("NVML in the program", NVML, {}, "others"),
    ("NVML asked by memtrace run", SEEN, {}, "run"),
    ("torch.profiler beside it", PROFILER, {}, "others"),
    ("JAX", JAX, {}, "bytes"),
    ("CuPy", CUPY, {}, "bytes"),
]


def self_tests(folder):
    cuda = {"LD_LIBRARY_PATH": os.path.join(BUILD, "programs", "cuda")}
    cache, direct, seen = (os.path.join(BUILD, "programs", p) for p in ("gpu_cache", "gpu_direct", "gpu_seen"))
    nvml = dict(cuda, FAKE_NVML_FILE=os.path.join(folder, "clients"), GPU_SEEN_MS="2000")
    return [
        ("segments and blocks", [cache, "stranded"], cuda, "equal"),
        ("expandable segments", [cache, "expandable"], cuda, "equal"),
        ("no caching", [cache, "uncached"], cuda, "bytes"),
        ("driver", [direct, "plain", "vmm", "managed"], cuda, "bytes"),
        ("NVML asked by memtrace run", [seen, "8:self:512"], dict(nvml, MEMTRACE_INTERVAL="0.1"), "run"),
        ("an NVML that fails must fail", [seen, "8:self:512"], dict(nvml, FAKE_NVML_FAIL="init"), "run"),
        ("a wrong truth must fail", [cache, "lie"], cuda, "equal"),
        ("a program without a GPU must fail", [os.path.join(BUILD, "programs", "tiny")], {}, "bytes"),
    ]


# ---- the table --------------------------------------------------------------------------------------

def run(folder, program, env, traced, events="all", by_driver=False):
    trace = os.path.join(folder, "trace.bin")
    env = dict(os.environ, MEMTRACE_OUT=trace, MEMTRACE_QUIET="1", MEMTRACE_EVENTS=events, **env)
    argv = program
    if isinstance(program, str):  # a file: processes that are spawned read it again
        argv = [sys.executable, os.path.join(folder, "program.py")]
        with open(argv[1], "w") as f:
            f.write(program + (END if "truth" in program and "__main__" not in program else ""))
    if by_driver:
        argv = [os.path.join(BUILD, "memtrace"), "run", "--"] + argv
    elif traced:
        env["LD_PRELOAD"] = SHIM
    done = subprocess.run(argv, env=env, timeout=LIMIT_S, capture_output=True, text=True, cwd=folder)
    words = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    return done.returncode, words, done.stderr[-300:]


def numbers_of(folder, doc):
    parts = []
    for card in doc["gpu"]:
        parts.append("device %s: peak reserved %s, allocated %s, pinned %s, unattributed %s, out of memory %s" % (
            card["device"], card["peak_reserved_bytes"], card["peak_allocated_bytes"],
            card["pinned_host_bytes"], card["unattributed_bytes"],
            sum(p["out_of_memory_count"] for p in card["processes"])))
        beside = [p["reserved_bytes"] - p["torch_reserved_bytes"] for p in card["processes"]
                  if p.get("torch_reserved_bytes") is not None]
        if any(beside):
            parts.append("not PyTorch's at the end: %s" % beside)
    phases = [p["name"] for p in doc.get("phases", [])]
    if phases:
        parts.append("phases %s" % phases[:3])
    steps = sum(1 for m in records(os.path.join(folder, "trace.bin")) if m["record"] == "mark" and m["kind"] == 2)
    if steps:
        parts.append("%d steps" % steps)
    parts.append("names " + names(folder))
    return parts


def check(folder, program, env, how):
    plain = run(folder, program, env, False)
    if plain[0] == 77:
        return "skipped: not installed", []
    if plain[0] != 0:
        return "skipped: fails without the shim as well (%d %s)" % (plain[0], plain[2]), []
    traced = run(folder, program, env, True, by_driver=how == "run")
    if traced[0] != 0:
        return "FAILED: exit %d %s" % (traced[0], traced[2]), []
    doc = report(folder)
    if not doc["gpu"] or not any(c["peak_reserved_bytes"] for c in doc["gpu"]):
        return "FAILED: no memory was recorded", []
    more = numbers_of(folder, doc)
    if "STEP" in plain[1] and "STEP" in traced[1]:
        usual = os.path.join(folder, "usual")
        os.makedirs(usual, exist_ok=True)
        times = [run(usual, program, env, False), run(usual, program, env, True, "folded")]
        a, b = (float(r[1]["STEP"].split()[1]) for r in times)
        more.append("step %.3f ms, traced %+.1f %%" % (1000 * a, 100 * (b / a - 1)))
    if "SMAPS" in traced[1]:
        more.append(traced[1]["SMAPS"])
    if doc["trace"]["lost_events"] or doc["trace"]["missed_frees"]:
        return "FAILED: lost %d, missed frees %d" % (doc["trace"]["lost_events"], doc["trace"]["missed_frees"]), more
    if how == "run" and not any(p["unattributed_bytes"] and p["unattributed_from"] == "memtrace run"
                                for c in doc["gpu"] for p in c["processes"]):
        return "FAILED: NVML told memtrace run nothing", more
    if how in ("bytes", "run"):
        return "ok", more
    count, wrong = compare_truths(folder, how == "others")
    if wrong or not count:
        return "FAILED: %s" % (wrong or "no moment to compare"), more
    return "ok, %d moments to the byte" % count, more


def main():
    start, failed, folder = time.monotonic(), 0, sys.argv[1]
    for name, program, env, how in self_tests(folder) if "--self-test" in sys.argv else CHECKS:
        if time.monotonic() - start > ALL_S:
            print("%-34s skipped: out of time" % name)
            continue
        try:
            verdict, more = check(folder, program, env, how)
        except (subprocess.TimeoutExpired, ValueError, KeyError, OSError) as problem:
            verdict, more = "FAILED: %r" % problem, []
        failed += verdict.startswith("FAILED")
        print("%-34s %s" % (name, verdict), flush=True)
        for line in more:
            print("%-34s   %s" % ("", line), flush=True)
    print("gpu-check: %d failed" % failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
