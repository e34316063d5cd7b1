"""A paper's ablation: one recipe, a few runs that differ in a setting or two, side by side.

``python -m velatura.training ablation srgan -o DIR`` trains the variants one after the other from the same weights, for
as many steps each, and writes ``DIR/NAME.safetensors``; ``velatura evaluate`` then measures them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from velatura.errors import InputError
from velatura.training import export, recipes

__all__ = ["ABLATIONS", "ablation"]

# Recipe -> variant -> its settings. Ledig et al. 2016, table 1: SRGAN by pixels, by a shallow layer, by a deep one.
ABLATIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "srgan": {
        "srgan-pixel": ("content={}", "pixel=1.0", "loss=mse"),
        "srgan-shallow": ("content={stride2=0.1}", "pixel=0.0"),
        "srgan-deep": ("content={stride16=0.1}", "pixel=0.0"),
    },
}


def ablation(recipe: str, folder: Path, *, settings: Sequence[str] = (), **options: Any) -> list[Path]:
    """Train the variants of a recipe, as far as they are not trained yet.

    Parameters
    ----------
    recipe : str
        A key of `ABLATIONS`.
    folder : Path
        Gets a run and a file of weights for each variant; runs go on from their last checkpoint, if ``steps`` says so.
    settings : sequence of str
        ``key=value``, for every variant; what a variant is about comes on top.
    **options
        For `velatura.training.recipes.run`: ``quiet``, ``max_minutes`` of each run.

    Returns
    -------
    list of Path
        The files, in the paper's order.

    Raises
    ------
    InputError
        The recipe has no ablation, or a setting is at fault.
    """
    if recipe not in ABLATIONS:
        raise InputError(f"recipe {recipe!r} has no ablation; those that have one: {', '.join(ABLATIONS)}")
    files = []
    for name, own in ABLATIONS[recipe].items():
        run, file = folder / name, folder / f"{name}.safetensors"
        last = recipes.run(recipe, run, settings=[*settings, *own], resume=True, **options)
        if not file.is_file() or file.stat().st_mtime < last.stat().st_mtime:
            export.export_run(run, file, metrics=recipes.evaluate(run))
        files.append(file)
    return files
