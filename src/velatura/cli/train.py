"""``velatura train``: a recipe, its settings, a folder for the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from velatura.training.recipes import RECIPES, run

__all__ = ["train"]


def train(
    recipe: Annotated[str, Parameter(help=f"What to train: {', '.join(RECIPES)}.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], metavar="RUN", help="Folder of the run.")],
    config: Annotated[
        Path | None,
        Parameter(metavar="FILE", help="TOML of settings, or a name: srgan_paper, srresnet_x2..."),
    ] = None,
    set: Annotated[
        tuple[str, ...], Parameter(negative="", metavar="KEY=VALUE", help="One setting; may be repeated.")
    ] = (),
    devices: Annotated[int | None, Parameter(metavar="N", help="Devices of each machine; they share a batch.")] = None,
    nodes: Annotated[int | None, Parameter(metavar="N", help="Machines; see docs/distributed.md.")] = None,
    resume: Annotated[bool, Parameter(negative="", help="Go on from the run's last checkpoint.")] = False,
    max_minutes: Annotated[float | None, Parameter(metavar="M", help="Save and stop after so many minutes.")] = None,
    quiet: Annotated[bool, Parameter(negative="", help="Print nothing but errors.")] = False,
) -> None:
    """Train a model from a recipe; Ctrl-C saves, --resume goes on exactly where it was.

    Images come from the data folder: --set data=DIR, or VELATURA_DATA.
    """
    asked = (("devices", devices), ("num_nodes", nodes))
    set = (*set, *(f"{name}={count}" for name, count in asked if count is not None))
    run(recipe, output, config=config, settings=set, resume=resume, max_minutes=max_minutes, quiet=quiet)
