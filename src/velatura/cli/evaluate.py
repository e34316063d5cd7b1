"""``velatura evaluate``: figures with their protocol, beside a baseline, from images that the model never saw.

Each task's own protocol lives in ``training/recipes/<task>.py``, where its held-out images are; here its figures
become a `velatura.metrics.report.Report`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import Parameter

from velatura.cli.evaluate_generate import Part as GeneratePart
from velatura.cli.evaluate_imagine import Part as ImaginePart
from velatura.cli.evaluate_inpaint import InpaintOptions
from velatura.cli.evaluate_restore import Part as RestorePart
from velatura.errors import InputError, MachineError
from velatura.metrics.report import Column, Interval, Report, bootstrap, check_json, table, write_json

if TYPE_CHECKING:
    from velatura.metrics.fidelity import Protocol

__all__ = ["evaluate"]

#: What can be measured of a task; the first is the usual part.
PARTS = {"restore": get_args(RestorePart), "generate": get_args(GeneratePart), "imagine": get_args(ImaginePart)}

_IN_WORDS = "; ".join(f"{task}: {', '.join(parts)}" for task, parts in PARTS.items())


def evaluate(
    task: Literal["blend", "generate", "imagine", "inpaint", "restore", "stylize", "upscale", "fidelity"],
    /,
    *,
    data: Annotated[
        Path, Parameter(help="Folder of the sets, of originals (inpaint, upscale) or of results (fidelity).")
    ],
    model: Annotated[
        tuple[str, ...],
        Parameter(
            negative="", metavar="NAME|FILE", help="Default: the task's own; repeated, side by side (not blend)."
        ),
    ] = (),
    reference: Annotated[
        Path | None,
        Parameter(help="Folder of the originals, paired by name; DATA then holds low resolutions (upscale)."),
    ] = None,
    scale: Annotated[Literal[2, 3, 4], Parameter(help="How many times larger (upscale).")] = 4,
    faces: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Measure the held-out faces of the sets (upscale).")
    ] = False,
    worn: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Wear the low resolutions as the web does (upscale).")
    ] = False,
    sheet: Annotated[
        Path | None,
        Parameter(
            metavar="DIR",
            help="Write a sheet for blind comparison and its key (upscale), or of results (imagine, inpaint, restore, "
            "stylize).",
        ),
    ] = None,
    part: Annotated[
        RestorePart | GeneratePart | ImaginePart | None,
        Parameter(help=f"What is measured, usually the first: {_IN_WORDS}."),
    ] = None,
    judge: Annotated[
        str | None,
        Parameter(metavar="NAME|FILE", help="Text encoder that no model was trained with: retrieval (imagine)."),
    ] = None,
    inpaint: Annotated[InpaintOptions, Parameter(name="*")] = InpaintOptions(),  # noqa: B008  it is frozen
    protocol: Annotated[
        Literal["rgb", "y", "y2", "y3", "y4"],
        Parameter(help="Colour space and crop of PSNR and SSIM (fidelity): y4 is the Y channel, border 4 cropped."),
    ] = "rgb",
    json: Annotated[
        Path | None, Parameter(metavar="FILE", help="Write the figures, versions and hardware too.")
    ] = None,
    overwrite: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Replace FILE if it exists; what is read never is.")
    ] = False,
) -> None:
    """Measure a model on held-out images, or a folder of results against the originals.

    Parameters
    ----------
    task
        What is measured.
    """
    from velatura.cli.tables import print_table

    if not data.is_dir():
        raise InputError(f"--data {data}: no such folder")
    if json is not None:
        check_json(json, overwrite=overwrite, inputs=_read(data, reference, (*model, *([judge] if judge else []))))
    if part is not None and part not in PARTS.get(task, ()):
        owner = next(owner for owner, parts in PARTS.items() if part in parts)
        raise InputError(f"--part {part} belongs to evaluate {owner}, not to evaluate {task}")
    chosen: Any = part or PARTS.get(task, ("",))[0]
    asked = {"--sheet": sheet is not None, "--faces": faces, "--worn": worn, "--judge": judge is not None}
    asked |= dict.fromkeys(inpaint.given(), True)
    owners = {"--sheet": ("upscale", "imagine", "inpaint", "restore", "stylize"), "--judge": ("imagine",)}
    owners |= {"--faces": ("upscale",), "--worn": ("upscale",)}
    owners |= {"--limit": ("generate", "imagine", "inpaint", "restore")}
    for option in (option for option, given in asked.items() if given):
        if task not in (tasks := owners.get(option, ("inpaint",))):
            raise InputError(f"{option} belongs to evaluate {' and '.join(tasks)}, not to evaluate {task}")
    if task == "fidelity":
        from velatura.metrics.fidelity import PROTOCOLS

        if reference is None or model:
            raise InputError("evaluate fidelity compares two folders: --data RESULTS --reference ORIGINALS, no --model")
        report = evaluate_fidelity(data, reference, PROTOCOLS[protocol])
    elif task == "upscale":
        from velatura.cli.evaluate_upscale import evaluate_upscale
        from velatura.tasks.upscale import MODEL

        report = evaluate_upscale(
            model or (MODEL,), data, scale=scale, reference=reference, faces=faces, worn=worn, sheet=sheet
        )
    elif reference is not None:
        raise InputError(f"--reference belongs to evaluate upscale and fidelity; {task} has originals of its own")
    elif task == "inpaint":
        from velatura.cli.common import progress_bar
        from velatura.cli.evaluate_inpaint import evaluate_inpaint

        with progress_bar() as progress:
            report = evaluate_inpaint(model, data, inpaint, sheet=sheet, progress=progress)
    elif task == "restore" and chosen in ("estimator", "finder"):
        from velatura.cli.evaluate_networks import evaluate_estimator, evaluate_finder

        if len(model) > 1 or inpaint.limit is not None or sheet is not None:
            raise InputError(f"evaluate restore --part {chosen} measures one model, without --limit and --sheet")
        measure = evaluate_estimator if chosen == "estimator" else evaluate_finder
        report = measure(model[0] if model else None, data)
    elif task == "restore":
        from velatura.cli.common import progress_bar
        from velatura.cli.evaluate_restore import evaluate_restore
        from velatura.tasks.restore import MODEL

        with progress_bar() as progress:
            report = evaluate_restore(
                model or (MODEL,), data, part=chosen, limit=inpaint.limit, sheet=sheet, progress=progress
            )
    elif task == "generate":
        from velatura.cli.common import progress_bar
        from velatura.cli.evaluate_generate import IMAGES, evaluate_generate
        from velatura.tasks.generate import MODEL

        with progress_bar() as progress:
            report = evaluate_generate(
                model or (MODEL,), data, part=chosen, count=inpaint.limit or IMAGES, progress=progress
            )
    elif task == "imagine":
        from velatura.cli.common import progress_bar
        from velatura.cli.evaluate_imagine import COUNT, evaluate_imagine
        from velatura.tasks.imagine import MODEL

        with progress_bar() as progress:
            report = evaluate_imagine(
                model or (MODEL,),
                data,
                part=chosen,
                judge=judge,
                count=inpaint.limit or COUNT,
                sheet=sheet,
                progress=progress,
            )
    elif len(model) > 1:
        raise InputError(f"evaluate {task} measures one model; got {', '.join(model)}")
    elif task == "stylize":
        from velatura.cli.common import progress_bar
        from velatura.cli.evaluate_stylize import evaluate_stylize

        with progress_bar() as progress:
            report = evaluate_stylize(model[0] if model else None, data, sheet=sheet, progress=progress)
    else:
        report = evaluate_blend(model[0] if model else "blending-gan", data)
    if json is not None:
        write_json(report, json, overwrite=overwrite)
    print_table(table(report))


def _read(data: Path, reference: Path | None, models: tuple[str, ...]) -> Iterator[Path]:
    """List what may be read: the models, and all that the folders hold but earlier reports."""
    yield from map(Path, models)
    for folder in (data, reference):
        if folder is not None:
            yield from (path for path in folder.rglob("*") if path.suffix.lower() != ".json" and path.is_file())


def evaluate_blend(model: str, data: Path) -> Report:
    """Measure a Blending GAN on held-out pairs: colour error inside the mask against pasting and Poisson.

    Parameters
    ----------
    model : str
        A name of the catalog, or a file.
    data : Path
        Folder of the training sets; what is held out of each is fixed by name.

    Returns
    -------
    Report

    Raises
    ------
    ModelError
        The model is unknown or refused.
    MachineError
        What training needs is not installed.
    """
    from velatura.catalog import load
    from velatura.nets.blending_gan import BlendingGAN

    network = load(model, {"BlendingGAN": BlendingGAN})
    try:
        from velatura.training.recipe import make_config
        from velatura.training.recipes import blend
    except ImportError as error:
        raise MachineError(f"{error.name} is not installed; pip install 'velatura[train]'") from None
    config = make_config(blend.BlendConfig, {"data": str(data)})
    return report_of_blend(blend.evaluate(network, config), Path(model).stem)


def report_of_blend(scores: dict[str, Any], model: str) -> Report:
    """Turn what ``velatura.training.recipes.blend.evaluate`` measured of ``model`` into a report."""
    units = {
        "levels": Column("mean absolute colour error inside the mask", "grey levels"),
        "ciede2000": Column("CIEDE2000 inside the mask"),
    }
    rows = {}
    for kind, methods in scores["rows"].items():
        for method, figures in methods.items():
            name = model if method == "ours" else method
            rows[name if kind == "all" else f"{name}, {kind}"] = [Interval(*figures[unit]) for unit in units]
    identity = scores["identity"]
    return Report(
        title="Blending at 64x64",
        protocol=(
            "Held-out images in two random lights, one pasted into the other at 64x64 through hard masks, half of them "
            f"centre squares; pairs drawn from seed {scores['seed']}; intervals by bootstrap over pairs. Other photo: "
            "the source is another photograph, and the target is that photograph in the destination's light."
        ),
        data="what is held out of scenes96, faces128 (color), sr_t91_bsds400 and sr_hr_patches",
        count=scores["pairs"],
        things="pairs",
        columns=list(units.values()),
        rows=rows,
        model=model,
        baseline="poisson",
        notes=[
            f"Where nothing is to change it changes {identity['mean']:.2f} grey levels in the mean, "
            f"{identity['max']:.1f} at most."
        ],
    )


def evaluate_fidelity(results: Path, originals: Path, protocol: Protocol) -> Report:
    """Compare a folder of images with their originals, paired by path without the suffix.

    Parameters
    ----------
    results, originals : Path
        Folders, searched recursively.
    protocol : velatura.metrics.fidelity.Protocol

    Returns
    -------
    Report
        PSNR, SSIM and CIEDE2000; alpha is left out.

    Raises
    ------
    InputError
        A folder is not there, a result has no original, or sizes differ.
    """
    from velatura.image import open_image
    from velatura.metrics.fidelity import color_error, psnr, ssim

    found, known = _by_stem(results), _by_stem(originals)
    if not found:
        raise InputError(f"{results}: no images; expected results to compare with {originals}")
    missing = sorted(set(found) - set(known))
    if missing:
        raise InputError(f"{found[missing[0]]}: no original of this name in {originals} ({len(missing)} such)")
    figures: list[tuple[float, float, float]] = []
    for stem, path in found.items():
        image = open_image(path, max_megapixels=float("inf")).pixels
        original = open_image(known[stem], max_megapixels=float("inf")).pixels
        try:
            figures.append(
                (psnr(image, original, protocol), ssim(image, original, protocol), color_error(image, original))
            )
        except ValueError as error:
            raise InputError(f"{path} against {known[stem]}: {error}") from None
    columns = [Column("PSNR", "dB", "higher"), Column("SSIM", "", "higher", digits=4), Column("CIEDE2000")]
    rows = {results.name or str(results): [bootstrap(values) for values in zip(*figures, strict=True)]}
    notes = [f"{len(known) - len(found)} originals have no result."] if len(known) > len(found) else []
    return Report(
        title=f"{results} against {originals}",
        protocol=f"{protocol}; CIEDE2000 of the whole image.",
        data=originals.name or str(originals),
        count=len(figures),
        columns=columns,
        rows=rows,
        notes=notes,
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    """List the images of a folder by their path in it, without the suffix."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in _images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise InputError(f"{path} and {found[stem].name} have the same name; which one is meant cannot be told")
        found[stem] = path
    return found


def _images(folder: Path) -> Iterator[Path]:
    from velatura.image import SUFFIXES

    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file())
