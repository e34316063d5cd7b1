"""One plain training loop, on Lightning Fabric.

What differs between applications lives in a recipe: its networks, its batches and one step, written out. What is
the same for all lives here: precision, devices, averaging, clipping, logs, sample sheets, checkpoints, resuming.

Exactness: batch k is drawn from (seed, k) and torch's own generator is seeded from (seed, k) before step k, so
no random state exists that a checkpoint could miss. On a CPU, a run that was killed and resumed equals an unbroken
one tensor for tensor.

Several processes share each batch out: the losses are those of one process within rounding, as far as images are
treated one by one (batch normalisation, noise that a step draws, and what compares sets of images, as the spectral loss
does, are each process's own).

    RUN/config.json     the settings
    RUN/log.csv         training and held-out figures side by side
    RUN/sheets/         samples, as PNG
    RUN/checkpoints/    the last two, see `velatura.training.checkpoint`
"""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision, Precision
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from velatura.catalog import load_state
from velatura.errors import Cancelled, InputError, MachineError, ModelError
from velatura.training import checkpoint
from velatura.training.recipe import TrainConfig

__all__ = ["Recipe", "Training", "learning_rate", "train"]


@dataclass
class Training:
    """What a recipe's step works with.

    Attributes
    ----------
    fabric : Fabric
        Knows device and precision.
    networks, optimizers : dict
        By the recipe's names, set up for the device.
    clip : float
        Largest norm of a network's gradient; 0 = any.
    """

    fabric: Fabric
    networks: dict[str, Any]
    optimizers: dict[str, Any]
    clip: float

    def descend(self, name: str, loss: Tensor) -> None:
        """One step of the optimizer `name` down the slope of `loss`."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if self.clip:
            # A gradient that is not finite shows in the next loss, which the loop looks at.
            self.fabric.clip_gradients(self.networks[name], optimizer, max_norm=self.clip, error_if_nonfinite=False)
        optimizer.step()


class Recipe(Protocol):
    """What an application tells the loop.

    The first of `networks` is the one that is averaged, measured and exported; an optimizer bears the name of the
    network whose weights it changes. `config` holds at least what `TrainConfig` does. A recipe may have a method
    `begin`, which sets the networks up from its images: it is called when a run starts from nothing. One that compares
    the images of a batch with each other says so by ``divisible = False``: it trains in one process only.
    """

    name: str
    config: Any
    networks: dict[str, nn.Module]
    architecture: str
    arguments: dict[str, Any]

    def optimizers(self) -> dict[str, Optimizer]:
        """New optimizers of `networks`."""
        ...

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """The batch of a step, on the CPU; a function of its arguments and the config's seed alone.

        Several processes draw the same one (``rank`` 0) and keep their shares, so that one image belongs to each row of
        every tensor, or to each row of its halves. It is drawn in a thread beside the step before, so it must leave
        torch's own generator alone.
        """
        ...

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Change the networks; return figures for the log, always the same ones."""
        ...

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """Figures on images that are never trained on."""
        ...

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Samples side by side, (H, W, 3)."""
        ...


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear rise, then a cosine down to ``final_rate``: a function of the step, so nothing is to be saved.

    Examples
    --------
    >>> config = TrainConfig(steps=100, warmup=10, learning_rate=1.0, final_rate=0.0)
    >>> learning_rate(config, 4), learning_rate(config, 10), round(learning_rate(config, 55), 6)
    (0.5, 1.0, 0.5)
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = min((step - config.warmup) / max(config.steps - config.warmup, 1), 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * cosine)


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    max_minutes: float | None = None,
    quiet: bool = False,
) -> Path:
    """Train until the recipe's number of steps or the given time is reached.

    Parameters
    ----------
    recipe : Recipe
        With fresh networks.
    run : Path
        Folder of the run; made if missing.
    resume : bool
        Go on from the last complete checkpoint, if there is one.
    max_minutes : float, optional
        Stop after so many minutes, with a checkpoint.
    quiet : bool
        Print nothing.

    Returns
    -------
    Path
        The last checkpoint.

    Raises
    ------
    InputError
        The run exists and `resume` was not asked for, or the batch cannot be shared by so many processes.
    ModelError
        The weights to start from are unknown or of another network.
    MachineError
        A figure of the training is no longer finite.
    Cancelled
        Ctrl-C or SIGTERM; the state is saved.
    """
    config: TrainConfig = recipe.config
    started = time.monotonic()
    if run.exists() and not run.is_dir():
        raise InputError(f"run {run} is a file; expected a folder, new or of a run")
    if checkpoint.latest(run) and not resume:
        raise InputError(f"run {run} exists: go on with --resume, or name another folder")
    if config.threads:
        torch.set_num_threads(config.threads)
    devices, nodes = _world(config)
    _check_share(recipe, devices * nodes)
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        plugins=[_precision(config)],
    )
    fabric.launch()
    first = next(iter(recipe.networks))
    # What the first process sees counts: another machine may see a shared folder late.
    found = fabric.broadcast(checkpoint.latest(run) if resume else None)
    if not found:
        if not config.start and (begin := getattr(recipe, "begin", None)):
            begin()
        starts = {first: config.start, "discriminator": getattr(config, "critic_start", None)}
        for name, weights in starts.items():
            if weights:
                recipe.networks[name].load_state_dict(load_state(weights, recipe.networks[name]))
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        # Statistics of the whole batch, not of one share; torch has this for CUDA only.
        recipe.networks = {
            name: nn.SyncBatchNorm.convert_sync_batchnorm(network) for name, network in recipe.networks.items()
        }
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    for network in recipe.networks.values():
        network.to(memory_format=layout)  # type: ignore[call-overload]
    average = copy.deepcopy(recipe.networks[first]).to(fabric.device).requires_grad_(False).eval()
    optimizers = recipe.optimizers()
    peaks = {name: [group["lr"] for group in o.param_groups] for name, o in optimizers.items()}
    training = Training(
        fabric,
        {name: fabric.setup_module(network) for name, network in recipe.networks.items()},
        {name: fabric.setup_optimizers(optimizer) for name, optimizer in optimizers.items()},
        config.clip,
    )

    step, sums, counted, minutes = 0, {}, 0, 0.0
    if found:
        parts, state = checkpoint.load(found)
        _restore(recipe, average, optimizers, parts, state, found)
        step, sums, counted, minutes = state["step"], state["sums"], state["counted"], state["minutes"]

    chief = fabric.global_rank == 0
    console = Console(quiet=quiet or not chief, highlight=False, soft_wrap=True)
    if chief:
        run.mkdir(parents=True, exist_ok=True)
        checkpoint.remove_remains(run)
        settings = {"recipe": recipe.name, "settings": config.model_dump()}
        checkpoint.write_text(run / "config.json", json.dumps(settings, indent=1) + "\n")
    log = _Log(run, step, config.tensorboard) if chief else None
    weights = sum(p.numel() for p in recipe.networks[first].parameters())
    console.print(
        f"{first}: {weights:,} weights, {fabric.device}, {config.precision}; steps {step:,} to {config.steps:,}"
    )

    def save() -> Path:
        state = {
            "sums": sums,
            "counted": counted,
            "minutes": minutes + (time.monotonic() - started) / 60,
            "config": config.model_dump(),
            "optimizers": {},
        }
        parts: checkpoint.Parts = {name: dict(net.state_dict()) for name, net in recipe.networks.items()}
        parts["average"] = dict(average.state_dict())
        for name, optimizer in optimizers.items():
            parts[f"{name}-optimizer"], state["optimizers"][name] = checkpoint.optimizer_state(optimizer)
        return checkpoint.save(run, step, parts, state) if chief else run

    def measure() -> dict[str, float]:
        return {f"held_out/{name}": value for name, value in recipe.held_out(average).items()}

    last_saved = logged = time.monotonic()
    if log and step == 0:
        before = measure()
        log.write({"step": 0, **before})
        console.print(_line(0, config.steps, before))
    rank, world = fabric.global_rank, fabric.world_size
    with _stop_signals() as stop, console.status("") as status, ThreadPoolExecutor(1) as aside:
        coming = aside.submit(recipe.batch, step, 0)
        while step < config.steps:
            torch.manual_seed(int(np.random.SeedSequence((config.seed, step, rank)).generate_state(1)[0]))
            batch = tuple(
                tensor.to(fabric.device, memory_format=layout) if tensor.ndim == 4 else tensor.to(fabric.device)
                for tensor in (_share(whole, rank, world) for whole in coming.result())
            )
            coming = aside.submit(recipe.batch, step + 1, 0)
            share = learning_rate(config, step) / config.learning_rate
            for name, optimizer in optimizers.items():
                for group, peak in zip(optimizer.param_groups, peaks[name], strict=True):
                    group["lr"] = share * peak  # each optimizer's own rate, all on one curve
                training.networks[name].train()
            figures = _averaged(fabric, recipe.step(training, batch, step))
            wrong = [name for name, value in figures.items() if not math.isfinite(value)]
            if wrong:
                last = checkpoint.latest(run)
                raise MachineError(
                    f"{wrong[0]} is {figures[wrong[0]]} at step {step}; last good checkpoint: {last or 'none'}; "
                    "resume from it with a lower learning_rate or clip"
                )
            _follow(average, recipe.networks[first], min(config.ema, (1 + step) / (10 + step)))
            step += 1

            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            measured = step % config.held_out_every == 0
            if step % config.log_every == 0 or measured:
                row = {f"train/{name}": total / counted for name, total in sums.items()}
                row["images_per_second"] = counted * config.batch_size / (time.monotonic() - logged)
                row["learning_rate"] = share * config.learning_rate
                row["minutes"] = minutes + (time.monotonic() - started) / 60
                sums, counted, logged = {}, 0, time.monotonic()
                if log:
                    if measured:
                        row |= measure()
                        console.print(_line(step, config.steps, row))
                    status.update(_line(step, config.steps, row))
                    log.write({"step": step, **row})
            if chief and (step % config.sheet_every == 0 or step == config.steps):
                _write_sheet(run, step, recipe.sheet(average))
            out_of_time = max_minutes is not None and time.monotonic() - started > 60 * max_minutes
            # Every process must leave at the same step.
            leave = bool(fabric.all_reduce(torch.tensor(float(out_of_time or stop[0])), reduce_op="sum"))  # type: ignore[arg-type]
            if leave:
                break
            if time.monotonic() - last_saved > 60 * config.checkpoint_minutes:
                save()
                last_saved = time.monotonic()
    final = save()
    fabric.barrier()
    if stop[0]:
        raise Cancelled(f"stopped at step {step:,} and saved; go on with --resume")
    console.print(f"step {step:,} saved in {final}")
    return final


def _world(config: TrainConfig) -> tuple[int, int]:
    """Devices of each machine, and machines: what torchrun says, where it started us, else the settings."""
    if {"TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "WORLD_SIZE"} <= os.environ.keys():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    return config.devices, config.num_nodes


def _check_share(recipe: Recipe, world: int) -> None:
    """Refuse what cannot be shared out evenly."""
    if world > 1 and not getattr(recipe, "divisible", True):
        raise InputError(
            f"{recipe.name} compares the images of a batch with each other, so one process has to see them all; "
            "leave out --devices and --nodes"
        )
    if recipe.config.batch_size % world:
        raise InputError(
            f"batch_size {recipe.config.batch_size} cannot be shared by {world} processes; choose a multiple of {world}"
        )


def _share(whole: Tensor, rank: int, world: int) -> Tensor:
    """Every world-th row from the rank-th on: so halves that stand one after the other are each shared out, too.

    Where the rows do not come out even, some processes take one of the first ones again.
    """
    if world == 1:
        return whole
    each = -(-len(whole) // world)
    return whole[(rank + world * torch.arange(each)) % len(whole)]


def _averaged(fabric: Fabric, figures: dict[str, Tensor]) -> dict[str, float]:
    """Figures of a step as numbers: those of the whole batch."""
    if fabric.world_size == 1:
        return {name: float(value) for name, value in figures.items()}
    mine = torch.stack([torch.as_tensor(value, dtype=torch.float64).cpu() for value in figures.values()])
    whole = fabric.all_reduce(mine.float().to(fabric.device), reduce_op="mean")
    return dict(zip(figures, whole.tolist(), strict=True))  # type: ignore[union-attr]


class _Autocast(MixedPrecision):
    """Mixed precision that leaves inputs alone.

    Fabric's own rounds them to bfloat16, which has 8 bits: a picture would lose what the network is to restore.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def _precision(config: TrainConfig) -> Precision:
    if config.precision == "32-true":
        return Precision()
    on_gpu = config.accelerator != "cpu" and torch.cuda.is_available()
    return _Autocast("bf16-mixed", "cuda" if on_gpu else "cpu")


def _restore(
    recipe: Recipe,
    average: nn.Module,
    optimizers: dict[str, Optimizer],
    parts: checkpoint.Parts,
    state: dict[str, Any],
    folder: Path,
) -> None:
    try:
        for name, network in recipe.networks.items():
            network.load_state_dict(parts[name])
        average.load_state_dict(parts["average"])
        for name, optimizer in optimizers.items():
            checkpoint.restore_optimizer(optimizer, parts[f"{name}-optimizer"], state["optimizers"][name])
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"checkpoint {folder} is of other networks than these settings make: {error}") from error


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Running average of the weights; buffers are copied."""
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for kept, new in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(new)


@contextmanager
def _stop_signals() -> Iterator[list[bool]]:
    """A list whose one entry becomes true on Ctrl-C or SIGTERM, so that a step is always finished."""
    stop = [False]

    def ask(*_: object) -> None:
        stop[0] = True

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs us there has its own way to stop
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(step: int, steps: int, row: dict[str, float]) -> str:
    figures = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
    return f"step {step:,}/{steps:,}  {figures}"


def _write_sheet(run: Path, step: int, sheet: NDArray[np.uint8]) -> None:
    folder = run / "sheets"
    folder.mkdir(exist_ok=True)
    Image.fromarray(sheet).save(folder / f"step-{step:08d}.png")


class _Log:
    """``log.csv``, one row per `log_every` steps; rows after the step that is resumed from are dropped."""

    def __init__(self, run: Path, step: int, tensorboard: bool) -> None:
        self.path = run / "log.csv"
        self.rows: list[dict[str, Any]] = []
        if step and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.columns: list[str] = []
        self.events = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                print("tensorboard is not installed: pip install 'velatura[tensorboard]'", file=sys.stderr)
            else:
                self.events = SummaryWriter(str(run / "tensorboard"), purge_step=step)
        self._rewrite()

    def write(self, row: dict[str, Any]) -> None:
        """Add a row; a figure seen for the first time adds a column."""
        self.rows.append(row)
        if set(row) <= set(self.columns):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(row)
        else:
            self._rewrite()
        if self.events:
            for name, value in row.items():
                self.events.add_scalar(name, value, row["step"])

    def _rewrite(self) -> None:
        self.columns = list(dict.fromkeys(["step", *(name for row in self.rows for name in row)]))
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
