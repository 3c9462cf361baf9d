"""A small training run with two forked workers an epoch, always the same: to be attached to.

    injected_train.py EPOCHS

Prints "ready" after the first epoch and the last loss with all its digits.

SPDX-License-Identifier: Apache-2.0
"""

import sys

import torch
from torch.utils.data import DataLoader, Dataset


class Sums(Dataset):
    def __len__(self):
        return 256

    def __getitem__(self, index):
        x = torch.randn(64, generator=torch.Generator().manual_seed(index))
        return x, x.sum().unsqueeze(0)


torch.manual_seed(0)
torch.set_num_threads(2)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1))
optimizer = torch.optim.SGD(model.parameters(), 1e-3)
steps = 0
for epoch in range(int(sys.argv[1])):
    order = torch.Generator().manual_seed(epoch)
    for x, y in DataLoader(Sums(), batch_size=8, shuffle=True, num_workers=2, generator=order):
        loss = ((model(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    if not epoch:
        print("ready", flush=True)
print("steps", steps, "loss", loss.item(), sum(p.double().sum().item() for p in model.parameters()))
