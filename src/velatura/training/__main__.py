"""``python -m velatura.training``: train, measure and export without the command line's package.

::

    python -m velatura.training train blend -o RUN [--config FILE] [--set key=value]... [--resume] [--max-minutes M]
    python -m velatura.training export RUN -o FILE.safetensors [--network NAME] [--int8]
    python -m velatura.training evaluate RUN [--json FILE]
    python -m velatura.training ablation srgan -o DIR [--set key=value]...
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from velatura.errors import VelaturaError
from velatura.training import export, recipes
from velatura.training.ablation import ABLATIONS, ablation


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m velatura.training")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("recipe", choices=sorted(recipes.RECIPES))
    train.add_argument("--config", type=Path)
    train.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value")
    train.add_argument("-o", dest="run", type=Path, required=True)
    train.add_argument("--resume", action="store_true")
    train.add_argument("--max-minutes", type=float)
    for name in ("export", "evaluate"):
        command = commands.add_parser(name)
        command.add_argument("run", type=Path)
        command.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value")
    commands.choices["export"].add_argument("-o", dest="file", type=Path, required=True)
    commands.choices["export"].add_argument("--network", default="", help="another one than the average: a critic")
    commands.choices["export"].add_argument("--int8", action="store_true", help="8 bits a weight instead of 16")
    commands.choices["evaluate"].add_argument("--json", dest="file", type=Path)
    several = commands.add_parser("ablation")
    several.add_argument("recipe", choices=sorted(ABLATIONS))
    several.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value")
    several.add_argument("-o", dest="folder", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        if given.command == "ablation":
            files = ablation(given.recipe, given.folder, settings=given.settings)
            print("velatura evaluate upscale --data DATA", *(f"--model {file}" for file in files), "--sheet SHEETS")
            return 0
        if given.command == "train":
            recipes.run(
                given.recipe,
                given.run,
                config=given.config,
                settings=given.settings,
                resume=given.resume,
                max_minutes=given.max_minutes,
            )
            return 0
        other = given.network if given.command == "export" else ""
        scores = {} if other else recipes.evaluate(given.run, settings=given.settings)
        if given.command == "export":
            dtype = torch.int8 if given.int8 else torch.float16
            export.export_run(given.run, given.file, metrics=scores, dtype=dtype, network=other)
            print(f"{given.file}: {given.file.stat().st_size:,} bytes")
        elif given.file:
            given.file.write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    except VelaturaError as error:
        print(f"velatura: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
