"""Real PyTorch and numpy programs for verdicts: the case is the first argument, steps the second.

Every case prints what it holds when its work is done, by its own count: "kept N bytes".

SPDX-License-Identifier: Apache-2.0
"""

import collections
import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

CASE = sys.argv[1]
STEPS = int(sys.argv[2])
torch.manual_seed(0)
torch.set_num_threads(1)


def losses():
    """The losses are kept with their graphs: all activations of all steps stay."""
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        x = torch.randn(32, 64)
        loss = model(x).square().mean()  # LOSS
        optimizer.zero_grad()
        loss.backward(retain_graph=True)
        optimizer.step()
        kept.append(loss)
    some = kept[:40]  # all are equal, and to walk them all would be a long end of the run
    return graph_bytes(some, {p.data_ptr() for p in model.parameters()}) * len(kept) // len(some)


def graph_bytes(losses, not_these):
    """The tensors that the graphs of losses have saved, each once, by autograd's own account."""
    storages, seen, todo = {}, set(), [x.grad_fn for x in losses]
    while todo:
        function = todo.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        todo += [f for f, _ in function.next_functions]
        for name in [n for n in dir(function) if n.startswith("_saved_")]:
            try:
                value = getattr(function, name)
            except RuntimeError:  # a parameter: the optimizer has changed it since
                continue
            if isinstance(value, torch.Tensor) and value.data_ptr() not in not_these:
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(storages.values())


def lru():
    """A cache of at most 2000 arrays: they live too long to be folded."""
    cache = collections.OrderedDict()
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        key = int(rng.integers(0, 20000))
        np.sort(rng.random(1000))
        if key not in cache:
            cache[key] = np.full(8 * 1024, 1, dtype=np.uint8)  # CACHE
            if len(cache) > 2000:
                cache.popitem(last=False)
    kept.append(cache)
    return len(cache) * 8 * 1024


class Cached(Dataset):
    """Keeps every item that it ever made: a dict in each worker."""

    def __init__(self):
        self.cache = {}

    def __len__(self):
        return STEPS * 4

    def __getitem__(self, index):
        if index not in self.cache:
            self.cache[index] = np.full(20000, index % 250, dtype=np.uint8)  # ITEM
        return int(self.cache[index].sum())


def worker_dict():
    loader = DataLoader(Cached(), batch_size=4, num_workers=2, multiprocessing_context="fork")
    total = 0
    for batch in loader:
        total += int(batch.sum())
    return STEPS * 4 * 20000


def samples(rows):
    return DataLoader(torch.utils.data.TensorDataset(torch.zeros(rows, 8192)), batch_size=4,
                      num_workers=2, multiprocessing_context="fork")


def batches():
    """Every batch is kept as it came: in shared memory."""
    for (x,) in samples(STEPS * 4):
        kept.append(x)
    return sum(x.nbytes for x in kept)


def ring():
    """The last twelve batches are kept: a replay buffer."""
    last = collections.deque(maxlen=12)
    for (x,) in samples(STEPS * 4):
        last.append(x)
    kept.append(last)
    return sum(x.nbytes for x in last)


def shapes():
    """Convolutions of ever other shapes: oneDNN keeps what it made for each, up to a limit."""
    conv = nn.Conv2d(3, 16, 3, padding=1)
    with torch.no_grad():
        for i in range(STEPS):
            side = 32 + (i * 37) % 97
            conv(torch.zeros(2, 3, side, side + i % 13))
    return 0


def clean():
    """An ordinary training run: a CNN, Adam, three epochs, two workers."""
    images = torch.randn(STEPS, 1, 28, 28)
    labels = torch.randint(0, 10, (STEPS,))
    data = torch.utils.data.TensorDataset(images, labels)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3),
                          nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(3):
        loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=2,
                            multiprocessing_context="fork")
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch}: {total > 0}")
    return 0


kept = []
print("kept", {"losses": losses, "lru": lru, "worker-dict": worker_dict, "shapes": shapes,
               "clean": clean, "batches": batches, "ring": ring}[CASE](), "bytes")
