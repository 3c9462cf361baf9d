"""The checks of scripts/gpu-check: each runs a small program with and without the shim and compares
the report with PyTorch's own numbers. Prints one table. Standard library and torch only.

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
LIMIT_S = 60  # of one run

END = """
torch.cuda.synchronize()
print("TRUTH", torch.cuda.memory_allocated(), torch.cuda.memory_reserved(),
      torch.cuda.max_memory_allocated(), flush=True)
os._exit(0)
"""
HEAD = "import os, sys, time, torch\nd = 'cuda'\n"
GPT = HEAD + """
m = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True), 4).to(d)
o = torch.optim.AdamW(m.parameters())
x = torch.randn(8, 128, 256, device=d)
def step():
    o.zero_grad(); m(x).square().mean().backward(); o.step()
for i in range(20): step()
torch.cuda.synchronize(); t = time.perf_counter()
for i in range(100): step()
torch.cuda.synchronize()
print("STEP", (time.perf_counter() - t) / 100, flush=True)
"""
CONV = HEAD + """
m = torch.nn.Sequential(*[torch.nn.Conv2d(3 if i == 0 else 64, 64, 3, padding=1) for i in range(6)]).to(d)
o = torch.optim.SGD(m.parameters(), 0.1)
for i in range(20):
    o.zero_grad(); m(torch.randn(16, 3, 64, 64, device=d)).mean().backward(); o.step()
"""
PIN = HEAD + """
keep = [torch.empty(n * 100000, pin_memory=True) for n in range(1, 20)]
x = torch.ones(1000, device=d)
"""
GRAPH = HEAD + """
x = torch.ones(1 << 20, device=d); g = torch.cuda.CUDAGraph()
s = torch.cuda.Stream()
with torch.cuda.stream(s): y = x * 2
torch.cuda.synchronize()
with torch.cuda.graph(g): y = x * 2 + 1
for i in range(10): g.replay()
"""
FORK = HEAD + """
x = torch.ones(1 << 20, device=d)
pid = os.fork()
if pid == 0:
    a = [bytearray(1000) for i in range(1000)]; os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
y = x + 1
"""
PROFILER = GPT.replace("for i in range(100): step()", """
with torch.profiler.profile(profile_memory=True) as p:
    for i in range(3): step()
assert len(p.key_averages())""")

# name, program, environment, do PyTorch's numbers hold
CHECKS = [
    ("caching allocator, small GPT", GPT, {}, True),
    ("cuDNN convolutions", CONV, {}, True),
    ("expandable segments", GPT, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, True),
    ("backend cudaMallocAsync", GPT, {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}, False),
    ("no caching", CONV, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, False),
    ("pinned memory", PIN, {}, True),
    ("CUDA graph", GRAPH, {}, True),
    ("fork after use", FORK, {}, True),
    ("torch.profiler beside it", PROFILER, {}, True),
]


def run(folder, program, env, traced):
    env = dict(os.environ, MEMTRACE_OUT=os.path.join(folder, "trace.bin"), MEMTRACE_QUIET="1", **env)
    if traced:
        env["LD_PRELOAD"] = SHIM
    done = subprocess.run([sys.executable, "-c", program + END], env=env, timeout=LIMIT_S,
                          capture_output=True, text=True)
    words = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    return done.returncode, words, done.stderr[-200:]


def report(folder):
    out = subprocess.run([REPORT, "gpu", "--json", "--no-symbols", os.path.join(folder, "trace.bin")],
                         capture_output=True, text=True, timeout=LIMIT_S)
    return json.loads(out.stdout)


def check(folder, program, env, compare):
    plain = run(folder, program, env, False)
    traced = run(folder, program, env, True)
    if plain[0] != 0:
        return "skipped: fails without the shim as well", ""
    if traced[0] != 0:
        return "FAILED: exit %d %s" % (traced[0], traced[2]), ""
    cards = report(folder)["gpu"]
    if not cards:
        return "FAILED: nothing was recorded", ""
    p = cards[0]["processes"][0]
    truth = [int(v) for v in traced[1]["TRUTH"]]
    mine = [p.get("torch_allocated_bytes"), p.get("torch_reserved_bytes"), p.get("torch_peak_allocated_bytes")]
    more = "driver level %d, torch %s, pinned %d, unattributed %s" % (
        p["reserved_bytes"], truth, p["pinned_host_bytes"], p["unattributed_bytes"])
    if "STEP" in plain[1]:
        more += ", step %+.1f %%" % (100 * (float(traced[1]["STEP"][0]) / float(plain[1]["STEP"][0]) - 1))
    if not compare:
        return ("ok" if p["peak_reserved_bytes"] else "FAILED: no bytes"), more
    if mine != truth:
        return "FAILED: %s is not %s" % (mine, truth), more
    return ("ok" if p["reserved_bytes"] >= truth[1] else "FAILED: less than torch reserved"), more


def main():
    start, failed = time.monotonic(), 0
    for name, program, env, compare in CHECKS:
        if time.monotonic() - start > 540:
            print("%-32s skipped: out of time" % name)
            continue
        try:
            verdict, more = check(sys.argv[1], program, env, compare)
        except (subprocess.TimeoutExpired, ValueError, KeyError, OSError) as problem:
            verdict, more = "FAILED: %r" % problem, ""
        failed += verdict.startswith("FAILED")
        print("%-32s %s%s" % (name, verdict, "  (" + more + ")" if more else ""), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
