"""What ``velatura evaluate restore`` measures of the small networks that it asks: fading told, faces found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from velatura import catalog
from velatura.errors import MachineError
from velatura.metrics.report import Column, Interval, Report
from velatura.tasks.restore import ESTIMATOR

__all__ = ["evaluate_estimator", "evaluate_finder", "report_of_estimator", "report_of_finder"]

FINDER = "face-finder"

KINDS = {"faded": "in colour", "grey": "without colour, toned", "tone": "without colour or tint"}
FACES = {
    "photographs": "photographs",
    "photographs_covered": "photographs, a third of each face covered",
    "scenes": "made scenes",
    "scenes_covered": "made scenes, a third of each face covered",
}
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


def evaluate_finder(model: str | None, data: Path) -> Report:
    """Measure what finds faces, on held-out photographs and scenes, against its teacher.

    Parameters
    ----------
    model : str or None
        A name of the catalog, or a file.
    data : Path
        Folder of the training sets; the teacher's file lies beside it in ``pretrained``.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        No photographs, or no teacher.
    ModelError
        The model is unknown or refused, or does not say what it learned from.
    MachineError
        What training needs is not installed.
    """
    from velatura.cli.evaluate_generate import trained_with
    from velatura.nets.face_finder import FaceFinder

    name = model or FINDER
    network = catalog.load(name, {"FaceFinder": FaceFinder})
    _, config = trained_with(name, data, ("faces",))
    from velatura.training.recipes.faces import TrainFaceFinder

    # Labels are made anew: the file that it was trained with may lie elsewhere.
    recipe = TrainFaceFinder(config.model_copy(update={"labels": None}))
    return report_of_finder(recipe.evaluate(network), Path(name).stem)


def report_of_finder(scores: dict[str, Any], model: str) -> Report:
    """Turn what ``velatura.training.recipes.faces.TrainFaceFinder.evaluate`` measured of ``model`` into a report."""
    found, counts = scores["rows"], scores["counts"]

    def figure(name: str, digits: int = 3) -> str:
        value, low, high = (f"{number:.{digits}f}" for number in found[name])
        return f"{value} ({low}..{high})"

    return Report(
        title="Faces found",
        protocol=(
            "Share of the teacher's faces (YuNet), 24 pixels and up, that are found with an intersection over union of "
            "at least one half: on held-out photographs, and on scenes made of held-out faces and backgrounds; "
            "intervals by bootstrap over faces. Covered: a third of each face's box erased."
        ),
        data="what is held out of old_photos, sr_hr_patches and sr_t91_bsds400, and scenes",
        count=counts["photographs"] + counts["scenes"],
        things="faces",
        columns=[Column("faces found", better="higher", digits=3)],
        rows={f"{model}, {words}": [Interval(*found[name])] for name, words in FACES.items()},
        model=model,
        notes=[
            f"Faces of each kind: {', '.join(f'{words} {counts[name]}' for name, words in FACES.items())}.",
            f"Boxes where the teacher finds nothing: {figure('extra')} on a photograph, {figure('landscapes')} on a "
            f"landscape, {figure('landscapes_enlarged')} on one enlarged four times.",
            f"Landmarks lie {figure('landmarks')} sizes of the face from the teacher's, "
            f"{figure('landmarks_covered')} of a covered face.",
            f"{figure('milliseconds', 0)} ms of one core for 640x640 pixels.",
        ],
    )
