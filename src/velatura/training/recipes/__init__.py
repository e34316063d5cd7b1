"""One application, one file; a TOML file beside holds values only.

A recipe file offers a config (a frozen `TrainConfig`) and a recipe (what `velatura.training.loop.Recipe` says), with
``evaluate(network)`` and ``table(scores)`` for the figures that go onto the model's card.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from velatura.errors import InputError, MachineError, ModelError
from velatura.training.recipe import TrainConfig, make_config

__all__ = ["RECIPES", "evaluate", "load_run", "run"]

# Name -> file here, recipe, config. The file NAME.toml, if there is one, holds the usual values.
RECIPES = {
    "blend": ("blend", "Blend", "BlendConfig"),
    "dcgan-brain": ("generate", "TrainDCGAN", "DCGANConfig"),
    "dcgan-brain-encoder": ("inpaint", "TrainEncoder", "EncoderConfig"),
    "dcgan-faces": ("generate", "TrainDCGAN", "DCGANConfig"),
    "dcgan-faces-encoder": ("inpaint", "TrainEncoder", "EncoderConfig"),
    "esrgan": ("upscale_gan", "TrainESRGAN", "ESRGANConfig"),
    "esrgan-photo": ("upscale_gan", "TrainESRGANPhoto", "ESRGANPhotoConfig"),
    "esrgan-psnr": ("upscale", "TrainRRDB", "RRDBConfig"),
    "face-finder": ("faces", "TrainFaceFinder", "FaceFinderConfig"),
    "face-refiner": ("face_refiner", "TrainFaceRefiner", "FaceRefinerConfig"),
    "fading": ("fading", "TrainFading", "FadingConfig"),
    "features": ("features", "TrainFeatures", "FeaturesConfig"),
    "lapgan-faces": ("lapgan", "TrainLAPGAN", "LAPGANConfig"),
    "lapgan-flowers": ("lapgan", "TrainLAPGAN", "LAPGANConfig"),
    "lapgan-scenes": ("lapgan", "TrainLAPGAN", "LAPGANConfig"),
    "imagine": ("imagine", "TrainImagine", "ImagineConfig"),
    "restore": ("restore", "TrainRestore", "RestoreConfig"),
    "scratches": ("scratches", "TrainScratches", "ScratchesConfig"),
    "srcnn": ("upscale", "TrainSRCNN", "SRCNNConfig"),
    "srgan": ("upscale_gan", "TrainSRGAN", "SRGANConfig"),
    "srresnet": ("upscale", "TrainSRResNet", "SRResNetConfig"),
    "style-encoder": ("imagine", "TrainStyleEncoder", "StyleEncoderConfig"),
    "style-fast": ("stylize", "TrainStylize", "StylizeConfig"),
    "text-encoder": ("imagine", "TrainTextEncoder", "TextEncoderConfig"),
    "triplet-mapping": ("restore_triplet", "TrainMapping", "MappingConfig"),
    "triplet-vae-clean": ("restore_triplet", "TrainCleanVAE", "PhotoVAEConfig"),
    "triplet-vae-old": ("restore_triplet", "TrainOldVAE", "OldVAEConfig"),
    "vae-brain": ("generate", "TrainVAE", "VAEConfig"),
    "vae-faces": ("generate", "TrainVAE", "VAEConfig"),
}


def run(
    name: str,
    folder: Path,
    *,
    config: Path | None = None,
    settings: Sequence[str] = (),
    resume: bool = False,
    max_minutes: float | None = None,
    quiet: bool = False,
) -> Path:
    """Train a recipe by name.

    Parameters
    ----------
    name : str
        A key of `RECIPES`.
    folder : Path
        The run's folder.
    config : Path, optional
        TOML instead of the recipe's own; the name of one of those here does too: ``blend_paper``.
    settings : sequence of str
        ``key=value``, over the file's values.
    resume : bool
        Go on; settings not named again are those of the run.
    max_minutes, quiet
        As for `velatura.training.loop.train`.

    Returns
    -------
    Path
        The last checkpoint.

    Raises
    ------
    InputError
        The recipe, a setting or the data folder is at fault.
    ModelError
        The settings of the run to resume are damaged.
    MachineError
        Lightning is not installed.
    """
    recipe, model = _find(name)
    stored = folder / "config.json"
    tables: list[Any] = []
    if resume and stored.is_file():
        started = _read_settings(stored)
        if started["recipe"] != name:
            raise InputError(f"run {folder} is of recipe {started['recipe']!r}, not {name!r}")
        tables.append(started["settings"])
    elif config is None:
        usual = Path(__file__).with_name(f"{name}.toml")
        tables += [usual] if usual.is_file() else []
    if config is not None:
        packaged = Path(__file__).parent / f"{config.name}.toml"
        is_name = config.name == str(config) and not config.exists()
        tables.append(packaged if is_name and packaged.is_file() else config)
    chosen = make_config(model, *tables, settings=settings)
    try:
        from velatura.training.loop import train
    except ImportError as error:
        raise MachineError(f"training needs {error.name}: pip install 'velatura[train]'") from None
    return train(recipe(chosen), folder, resume=resume, max_minutes=max_minutes, quiet=quiet)


def load_run(folder: Path, settings: Sequence[str] = ()) -> tuple[Any, Any, int]:
    """The recipe of a run, its averaged network and the step.

    Returns
    -------
    recipe : velatura.training.loop.Recipe
        Made from the run's settings, `settings` over them.
    network : nn.Module
        The average, on the CPU, for inference.
    step : int
        Of the last checkpoint.

    Raises
    ------
    ModelError
        The run has no complete checkpoint, or its settings are damaged.
    """
    from velatura.training import checkpoint

    found = checkpoint.latest(folder)
    if not found:
        raise ModelError(f"run {folder} has no complete checkpoint yet")
    started = _read_settings(folder / "config.json")
    recipe_class, model = _find(started["recipe"])
    recipe = recipe_class(make_config(model, started["settings"], settings=settings))
    parts, state = checkpoint.load(found)
    network = next(iter(recipe.networks.values()))
    network.load_state_dict(parts["average"])
    return recipe, network.eval().requires_grad_(False), state["step"]


def evaluate(folder: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Measure the average of a run on held-out images, print the table, return the figures."""
    recipe, network, step = load_run(folder, settings)
    scores = recipe.evaluate(network)
    print(f"{folder}, step {step:,}")
    print(recipe.table(scores))
    return scores


def _read_settings(file: Path) -> dict[str, Any]:
    """What `velatura.training.loop.train` wrote into ``config.json``: the recipe's name and its settings."""
    try:
        found = json.loads(file.read_text("utf-8"))
        return {"recipe": str(found["recipe"]), "settings": dict(found["settings"])}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{file} is missing or damaged ({error!r}); delete it and resume the run with its own --config and --set"
        ) from error


def _find(name: str) -> tuple[type[Any], type[TrainConfig]]:
    if name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}; there are {', '.join(sorted(RECIPES))}")
    file, recipe, config = RECIPES[name]
    module = importlib.import_module(f"{__name__}.{file}")
    return getattr(module, recipe), getattr(module, config)
