"""Convolutions on ever new shapes, on the CPU: memory climbs, levels off, and little of it is live.

    conv_shapes.py STEPS

Prints "trim before=BYTES after=BYTES": resident before and after a malloc_trim() in a forked child,
at the end. Nothing but the last loss is kept.

SPDX-License-Identifier: Apache-2.0
"""

import ctypes
import os
import sys

import torch
from torch import nn


def step(net, optimizer, i):
    side = 24 + (i * 37) % 72
    batch = 2 + (i * 5) % 7
    loss = net(torch.randn(batch, 3, side, side + (i * 13) % 40)).square().mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def resident():
    with open("/proc/self/smaps_rollup") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Rss:"))


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.AdaptiveAvgPool2d(1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    libc = ctypes.CDLL("libc.so.6")
    for i in range(int(sys.argv[1])):
        step(net, optimizer, i)
    pid = os.fork()
    if not pid:
        resident()
        before = resident()
        libc.malloc_trim(0)
        print("trim before=%d after=%d" % (before, resident()), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    os._exit(0)


main()
