"""A recipe as small as can be, with all that the loop has to keep: two networks, dropout, momentum.

``python tiny.py RUN STEPS [--resume] [--die-at STEP] [--nan-at STEP]`` trains it in a process of its own.
"""

import argparse
import os
import signal
from pathlib import Path

import numpy as np
import torch
from torch import nn

from velatura.training.loop import train
from velatura.training.recipe import TrainConfig


class Tiny:
    name = "tiny"
    architecture = "Tiny"

    def __init__(self, config, *, die_at=None, nan_at=None, stop_at=None):
        self.config, self.die_at, self.nan_at, self.stop_at = config, die_at, nan_at, stop_at
        self.arguments = {"width": 8}
        torch.manual_seed(config.seed)
        self.networks = {
            "generator": nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(8, 3, 1)
            ),
            "critic": nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 1)),
        }

    def optimizers(self):
        return {
            "generator": torch.optim.Adam(self.networks["generator"].parameters(), lr=self.config.learning_rate),
            "critic": torch.optim.SGD(self.networks["critic"].parameters(), lr=1e-3, momentum=0.9),
        }

    def batch(self, step, rank):
        rng = np.random.default_rng((self.config.seed, step, rank))
        return (torch.from_numpy(rng.random((self.config.batch_size, 3, 8, 8), dtype=np.float32)),)

    def step(self, training, batch, step):
        if step == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        (real,) = batch
        fake = training.networks["generator"](real)
        critic = training.networks["critic"]
        training.descend("critic", critic(fake.detach()).mean() - critic(real).mean())
        loss = (fake - real).abs().mean() - 0.01 * critic(fake).mean()
        if step == self.nan_at:
            loss = loss * float("nan")
        training.descend("generator", loss)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def held_out(self, network):
        torch.rand(3)  # must not disturb the training
        return {"loss": float((network(torch.full((1, 3, 8, 8), 0.5)) - 0.5).abs().mean())}

    def sheet(self, network):
        return np.zeros((8, 8, 3), np.uint8)


def config(steps, **more):
    values = {
        "steps": steps, "batch_size": 4, "seed": 5, "warmup": 3, "learning_rate": 0.01, "ema": 0.9, "threads": 1,
        "accelerator": "cpu", "log_every": 2, "held_out_every": 4, "sheet_every": 8,
    }  # fmt: skip
    return TrainConfig(**(values | more))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--every", type=float, default=60, help="minutes between checkpoints")
    parser.add_argument("--devices", type=int, default=1)
    given = parser.parse_args()
    recipe = Tiny(config(given.steps, checkpoint_minutes=given.every, devices=given.devices), die_at=given.die_at)
    train(recipe, given.run, resume=given.resume, quiet=True)
