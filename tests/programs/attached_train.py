"""A training run to attach to: forked DataLoader workers, a leak that begins after the start.

    attached_train.py EPOCHS|FILE      FILE: until there is one

Prints "ready" when training begins, and at the end how many epochs there were and the sum of all
losses, which depends on every step.

SPDX-License-Identifier: Apache-2.0
"""

import os
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


def goes_on(until, epoch):
    return epoch < int(until) if until.isdigit() else not os.path.exists(until)


def lose(step):
    kept.append(bytearray(20000 + step % 7))  # LINE: lost


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    total, step, epoch = 0.0, 0, 0
    while goes_on(sys.argv[1], epoch):
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
        epoch += 1
    print(f"end epochs={epoch} steps={step}", flush=True)
    print(f"losses {total!r} {loss.item()!r} {sum(p.double().sum().item() for p in model.parameters())!r}")


if __name__ == "__main__":
    main()
