"""What ``velatura evaluate restore`` measures of the small networks that it asks: how fading is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from velatura import catalog
from velatura.errors import MachineError
from velatura.metrics.report import Column, Interval, Report
from velatura.tasks.restore import ESTIMATOR

__all__ = ["evaluate_estimator", "report_of_estimator"]

KINDS = {"faded": "in colour", "grey": "without colour, toned", "tone": "without colour or tint"}
METHODS = {"input": "faded", "grey world": "grey-world", "stretched": "min/max"}


def evaluate_estimator(model: str | None, data: Path) -> Report:
    """Measure what tells fading, on held-out photographs.

    Parameters
    ----------
    model : str or None
        A name of the catalog, or a file.
    data : Path
        Folder of the training sets.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        No photographs.
    ModelError
        The model is unknown or refused.
    MachineError
        What training needs is not installed.
    """
    from velatura.nets.fading import FadingEstimator

    network = catalog.load(model or ESTIMATOR, {"FadingEstimator": FadingEstimator})
    try:
        from velatura.training.recipe import make_config
        from velatura.training.recipes.fading import FadingConfig, TrainFading
    except ImportError as error:
        raise MachineError(f"{error.name} is not installed; pip install 'velatura[train]'") from None
    recipe = TrainFading(make_config(FadingConfig, {"data": str(data)}))
    return report_of_estimator(recipe.evaluate(network), Path(model or ESTIMATOR).stem)


def report_of_estimator(scores: dict[str, Any], model: str) -> Report:
    """Turn what ``velatura.training.recipes.fading.TrainFading.evaluate`` measured of ``model`` into a report."""
    names = {**METHODS, "ours": model}
    rows = {
        f"{names[method]}, {words}": [Interval(*scores["rows"][kind][method])]
        for kind, words in KINDS.items()
        for method in names
    }
    value, low, high = scores["clean"]
    return Report(
        title="Fading told and undone",
        protocol=(
            "Held-out photographs at their own size, faded by velatura.ops.degrade.random_fading with fixed seeds and "
            "rounded to 8 bits; fading told from a thumbnail of 64x64 and undone; CIEDE2000 over every ninth pixel "
            "(1 is about what an eye just sees); intervals by bootstrap over photographs. In colour; without colour, "
            "toned; without colour or tint: paler only, in one channel."
        ),
        data="what is held out of sr_t91_bsds400, sr_hr_patches and faces256",
        count=scores["images"],
        columns=[Column("CIEDE2000")],
        rows=rows,
        model=model,
        baseline=METHODS["input"],
        notes=[
            f"The mean colour of photographs that have not faded moves by {value:.2f} of 255 levels "
            f"({low:.2f}..{high:.2f}); {1 - scores['changed']:.0%} of them keep every bit.",
        ],
    )
