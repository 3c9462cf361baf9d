"""A training run to attach to: forked DataLoader workers, a leak that begins after the start.

    attached_train.py EPOCHS

Prints "ready" when training begins, and at the end the final loss, which depends on every step.

SPDX-License-Identifier: Apache-2.0
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

kept = []


class Squares(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.full((32,), float(index)) / 64, torch.tensor([index * index / 4096.0])


def lose(step):
    kept.append(bytearray(20000 + step % 7))  # LINE: lost


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    total, step = 0.0, 0
    for epoch in range(int(sys.argv[1])):
        for x, y in DataLoader(Squares(), batch_size=8, num_workers=2):
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            lose(step)
            step += 1
            if step == 1:
                print("ready", flush=True)
    print(f"loss {total:.6f} steps {step}", flush=True)


if __name__ == "__main__":
    main()
