"""The training runs that cost is measured on: small, on the CPU, always the same.

    train_pinned.py pinned|ordinary [EPOCHS [STEPS]]

pinned: a small MLP whose step is mostly dispatch, so that the main process makes several hundred
thousand mallocs and frees a second; ordinary: a CNN whose step is mostly arithmetic. A DataLoader
with two forked workers feeds both; the steady part is every epoch but the first.

It prints "@steady" and "@end" around the steady part and waits for a line of input after each, so
that whoever measures can look at a process that stands still (INTERACTIVE=0: it does not wait), and
last one JSON line: steps, seconds and CPU seconds (main process) of the steady part.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))
import memtrace_marks  # noqa: E402

INPUTS, CLASSES = 64, 4


def mlp():
    return nn.Sequential(nn.Linear(INPUTS, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
                         nn.Linear(512, CLASSES))


def cnn():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Upsample(scale_factor=4),
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 64, CLASSES))


RUNS = {"pinned": (mlp, 64, 4, 200), "ordinary": (cnn, 64, 3, 30)}  # model, batch, epochs, steps


class Ramps(Dataset):
    """One whole batch an item: the workers make as many tensors as the main process needs."""

    def __init__(self, steps, batch):
        self.steps = steps
        self.labels = torch.arange(batch) % CLASSES
        self.base = torch.arange(INPUTS).repeat(batch, 1) * 0.01

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        return self.base + (self.labels + index % 7).unsqueeze(1) * 0.1, self.labels


def say(point):
    """Let whoever measures look; the marks let the analyzer count what lies between."""
    memtrace_marks.mark(point)
    print("@" + point, flush=True)
    if os.environ.get("INTERACTIVE", "1") == "1":
        sys.stdin.readline()


def train(kind, epochs, steps):
    make_model, batch, *_ = RUNS[kind]
    torch.manual_seed(1)
    torch.set_num_threads(1)
    loader = DataLoader(Ramps(steps, batch), batch_size=None, num_workers=2, prefetch_factor=8,
                        multiprocessing_context="fork", persistent_workers=True)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(epochs):
        if epoch == 1:
            say("steady")
            wall, cpu = time.perf_counter(), time.process_time()
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    say("end")
    print(json.dumps({"steps": steps * (epochs - 1), "seconds": wall, "cpu": cpu,
                      "loss": round(loss.item(), 4)}), flush=True)


def main():
    kind = sys.argv[1] if len(sys.argv) > 1 else "pinned"
    if kind not in RUNS:
        sys.exit(f"train_pinned.py: unknown run '{kind}': {' or '.join(RUNS)}")
    numbers = [int(a) for a in sys.argv[2:]] + list(RUNS[kind][2:])[len(sys.argv) - 2:]
    train(kind, max(2, numbers[0]), numbers[1])


main()
