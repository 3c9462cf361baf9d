"""Real PyTorch: 8 batches are looked at, then 5 steps of an optimizer are made. No profiler runs.

SPDX-License-Identifier: Apache-2.0
"""
import torch
from torch.utils.data import DataLoader, TensorDataset

model = torch.nn.Linear(8, 8)
optimizer = torch.optim.SGD(model.parameters(), 0.1)


def batches(count):
    return DataLoader(TensorDataset(torch.randn(count * 4, 8)), batch_size=4)


for x, in batches(8):
    model(x)
for x, in batches(5):
    optimizer.zero_grad()
    model(x).sum().backward()
    optimizer.step()
