"""PyTorch programs whose phases keep something they no longer need, and their clean twins.

    phases.py CASE kept|clean

  marked     phases named with memtrace_marks: the outputs of each validation are kept
  epochs     no marks, but a DataLoader's workers tell of the epochs: every batch is kept as an array
  optimizer  the same, and what is kept is the optimizer's state, and the gradients

Prints what is kept when the last phase has ended, by its own count: "kept N bytes".

SPDX-License-Identifier: Apache-2.0
"""

import os
import sys
import time

BEGIN = time.monotonic()

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../scripts"))
import memtrace_marks as mt

KEEP = sys.argv[2] == "kept"
WIDTH = 2048
torch.manual_seed(0)
torch.set_num_threads(1)


def what_comes_later(model):
    """Other work, for a fifth of the time so far."""
    now = time.monotonic()
    with torch.no_grad():
        while time.monotonic() - now < (now - BEGIN) / 5:
            model(torch.randn(16, model[0].in_features)).sum().item()


def network(width):
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, width))


def train(model, batches, optimizer, each=lambda x: None):
    for (x,) in batches:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()  # GRADIENTS
        optimizer.step()  # STATE
        each(x)


def marked():
    model, outputs, scores = network(WIDTH), [], []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(3):
        mt.phase("train")
        train(model, [(torch.randn(64, 32),) for _ in range(10)], optimizer)
        mt.phase("validate")
        with torch.no_grad():
            for _ in range(4):
                out = model(torch.randn(512, 32))  # OUTPUT
                scores.append(out.mean().item())
                if KEEP:
                    outputs.append(out)
        out = None
    mt.phase("export")
    what_comes_later(model)
    return sum(x.nbytes for x in outputs)


def loader_of(rows):
    data = TensorDataset(torch.randn(rows, 32))
    return DataLoader(data, batch_size=16, num_workers=2, multiprocessing_context="fork")


def epochs():
    model, history = network(64), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def each(x):
        if KEEP:
            history.append(np.repeat(x.numpy(), 512, axis=0))  # HISTORY

    for _ in range(2):
        train(model, loader_of(320), optimizer, each)
    what_comes_later(model)
    return sum(x.nbytes for x in history)


def optimizer_state():
    model = network(65536)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(model, loader_of(96), optimizer)
    if not KEEP:
        optimizer = None
        model.zero_grad(set_to_none=True)
    what_comes_later(model)
    tensors = [p.grad for p in model.parameters() if p.grad is not None]
    for state in optimizer.state.values() if optimizer else []:
        tensors += state.values()
    return sum(t.nbytes for t in tensors)


print("kept", {"marked": marked, "epochs": epochs, "optimizer": optimizer_state}[sys.argv[1]](), "bytes")
