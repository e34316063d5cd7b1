"""A recipe whose images are treated one by one: ``python shared.py RUN STEPS [--devices N]`` trains it."""

import argparse
from pathlib import Path

import torch
from tiny import Tiny, config
from torch import nn

from velatura.training.loop import train


class Shared(Tiny):
    """`Tiny` without what sees a whole batch: batch normalisation, and dropout, which draws for one."""

    def __init__(self, settings):
        super().__init__(settings)
        torch.manual_seed(settings.seed)
        self.networks["generator"] = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))

    def step(self, training, batch, step):
        """A critic of the whole batch, too: two forward passes, then one backward."""
        return super().step(training, batch, step) | {"brightness": batch[0].mean()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    train(Shared(config(given.steps, devices=given.devices)), given.run, resume=given.resume, quiet=True)
