"""A small but real training run with two planted memory faults, for `make demo`.

A CNN learns to tell generated images apart: a DataLoader with two forked workers, an Adam
optimizer, two epochs. The data set is kept as Python lists, as many tutorials do. Planted:
  1. a native leak: leaky_normalise() in libleaky_native.so loses 48 KiB a step (see LEAK below);
  2. a list that grows: every step's history is kept for ever (see GROWS below).

SPDX-License-Identifier: Apache-2.0
"""

import ctypes
import os
import random
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

IMAGES = int(os.environ.get("DEMO_IMAGES", "1600"))
EPOCHS = int(os.environ.get("DEMO_EPOCHS", "2"))
SIDE = 24
LEAK_BYTES = 48 * 1024

native = ctypes.CDLL(sys.argv[1])
native.leaky_normalise.argtypes = [ctypes.c_size_t]
native.leaky_normalise.restype = None

history = []


class ListImages(Dataset):
    """Images as lists of Python floats: each worker that reads one touches its reference counts."""

    def __init__(self, count):
        rng = random.Random(0)
        self.items = []
        for i in range(count):
            label = i % 4
            pixels = [rng.random() * 0.5 + (label * 0.1 if x % 4 == label else 0.0)
                      for x in range(SIDE * SIDE)]
            self.items.append((pixels, label))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        pixels, label = self.items[index]
        return torch.tensor(pixels).view(1, SIDE, SIDE), label


def make_model():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * (SIDE // 4) ** 2, 4))


def remember(step, loss):
    history.append([(step, i, str(loss) + "/" + str(i)) for i in range(200)])  # GROWS


def train():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = ListImages(IMAGES)
    loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=2,
                        multiprocessing_context="fork",
                        generator=torch.Generator().manual_seed(0))
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    step = 0
    for epoch in range(EPOCHS):
        total = 0.0
        for images, labels in loader:
            native.leaky_normalise(LEAK_BYTES)  # LEAK
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
            remember(step, loss.item())
            step += 1
        print(f"epoch {epoch}: {step} steps, mean loss {total * (epoch + 1) / step:.3f}")


def history_bytes():
    """What the growing list holds by the interpreter's own count; all its numbers are shared."""
    rows = [row for rows in history for row in rows]
    return (sum(map(sys.getsizeof, [history] + history + rows))
            + sum(sys.getsizeof(text) for _, _, text in rows))


if __name__ == "__main__":
    train()
    if os.environ.get("DEMO_COUNT"):
        print(f"history: {history_bytes()} bytes")
