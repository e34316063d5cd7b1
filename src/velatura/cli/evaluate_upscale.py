"""What ``velatura evaluate upscale`` measures: fidelity and perception side by side, evidence, sheets for the eye."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from velatura.errors import InputError, MachineError
from velatura.image import LUMA, save_image
from velatura.metrics.report import Column, Report, bootstrap
from velatura.ops.evidence import FLOOR, Calibration, fit_calibration
from velatura.tasks.upscale import Upscale

if TYPE_CHECKING:
    from velatura.training.recipes.upscale import Pairs

__all__ = ["evaluate_upscale", "local_errors", "write_sheet"]

BASELINE = "bicubic"
HELD_OUT = "what is held out of BSDS500's train and test parts"
BY_BICUBIC = "by MATLAB's antialiased bicubic, 8 bit"
FACES = "faces256"
LEAST = 4  # images: fewer make no two halves to fit and to judge the map of the evidence on

ROWS = 10  # photographs on a sheet
CROP = 120  # px of the result
MAGNIFIED = 2  # by repeating pixels, so that the eye sees them as they are
SEED = 0  # of the order on a sheet

Images = list[NDArray[np.uint8]]


def evaluate_upscale(
    models: Sequence[str],
    data: Path,
    *,
    scale: int = 4,
    reference: Path | None = None,
    faces: bool = False,
    worn: bool = False,
    sheet: Path | None = None,
) -> Report:
    """Measure upscalers on the same photographs: the papers' ablation, if they are its models.

    Parameters
    ----------
    models : sequence of str
        Names of the catalog, ``bicubic``, ``lanczos``, or files; the first is the one that is judged.
    data : Path
        The data folder, of which the held-out photographs are taken; or any folder of originals (Set5...), whose low
        resolution is made by MATLAB's antialiased bicubic; or, beside ``reference``, a folder of low resolutions.
    scale : {2, 3, 4}
        How many times larger.
    reference : Path, optional
        Originals, paired with ``data`` by their path without the suffix.
    faces : bool
        Take the held-out faces of the data folder, and measure how far they move in what the features say of a whole
        image.
    worn : bool
        Blur, noise, JPEG and resizing, drawn for each image once and for all, lie between the originals and their low
        resolutions.
    sheet : Path, optional
        Folder for `write_sheet`.

    Returns
    -------
    Report
        PSNR and SSIM on luma, gain over bicubic, perceptual distance where the package holds the features that it is
        measured in, shift of the mean colour, of faces the distance of their embeddings; notes on the map of the
        evidence of each network.

    Raises
    ------
    InputError
        No images, wrong sizes, two models of one name, or a sheet that is there already.
    ModelError
        A model is unknown or refused.
    MachineError
        What training needs is not installed.
    """
    try:
        from velatura.metrics.perceptual import EMBEDDING, PROTOCOL
        from velatura.training.recipes.upscale import PROTOCOLS
    except ImportError as error:
        raise MachineError(f"{error.name} is not installed; pip install 'velatura[train]'") from None

    tasks = _tasks(models)
    if sheet is not None and any((sheet / name).exists() for name in ("sheet.png", "key.csv")):
        raise InputError(f"{sheet}: holds an earlier sheet; name another folder")
    for given, option in ((faces, "--faces"), (worn, "--worn")):
        if given and reference is not None:
            raise InputError(f"{option} makes its low resolutions itself; leave out --reference")
    pairs, words, made = _read_faces(data, scale) if faces else _read(data, reference, scale)
    if worn:
        from velatura.training.recipes.upscale_gan import wear

        wear(pairs)
        made = "worn by blur, noise, JPEG and resizing in random order (Real-ESRGAN's second-order model), 8 bit"
    features = _features()
    columns = [
        Column("PSNR", "dB", "higher"),
        Column("SSIM", "", "higher", digits=4),
        Column("gain over bicubic", "dB", "higher"),
        *([Column("perceptual distance", digits=4)] if features is not None else []),
        Column("shift of the mean colour", "grey levels"),
        *([Column("embedding distance", digits=4)] if faces and features is not None else []),
    ]
    results: dict[str, Images] = {}
    figures: dict[str, list[NDArray[np.float64]]] = {}
    for name, task in tasks.items():
        results[name] = [
            task(low, size=high.shape[1::-1]).image for low, high in zip(pairs.low, pairs.high, strict=True)
        ]
        figures[name] = _measure(results[name], pairs, features, faces)
    for row in figures.values():
        row.insert(2, row[0] - figures[BASELINE][0])
    if sheet is not None:
        write_sheet(results, pairs, sheet)
    return Report(
        title=f"Upscaling x{scale}",
        protocol=(
            f"{PROTOCOLS[scale]}; low resolution {made}. "
            + (f"Perceptual distance: {PROTOCOL}. " if features is not None else "")
            + "Shift of the mean colour: the largest of the three channels, against the low resolution."
            + (f" Embedding distance: {EMBEDDING}." if faces and features is not None else "")
        ),
        data=words,
        count=len(pairs),
        columns=columns,
        rows={name: [bootstrap(values) for values in row] for name, row in figures.items()},
        model=next(iter(name for name in tasks if name != BASELINE), ""),
        baseline=BASELINE,
        notes=[
            *([] if features is not None else ["No perceptual distance: the package holds no features yet."]),
            *(note for name, task in tasks.items() for note in _evidence(name, results[name], pairs, task)),
        ],
    )


def _tasks(models: Sequence[str]) -> dict[str, Upscale]:
    """Read the models; bicubic comes first."""
    tasks: dict[str, Upscale] = {BASELINE: Upscale(BASELINE)}
    for model in models:
        name = Path(model).stem
        if name in tasks and name != BASELINE:
            raise InputError(f"two models are called {name}; give one of the files another name")
        tasks[name] = Upscale(model)
    return tasks


def _read(data: Path, reference: Path | None, scale: int) -> tuple[Pairs, str, str]:
    """Read originals and low resolutions, and say in words what they are."""
    from velatura.training.data import Images as Set
    from velatura.training.data import read_folder
    from velatura.training.recipe import make_config
    from velatura.training.recipes.upscale import MEASURED, Pairs, UpscaleConfig, read_pairs

    made = BY_BICUBIC
    if reference is not None:
        low, high = (_by_stem(read_folder(folder)) for folder in (data, reference))
        missing = sorted(set(low) - set(high))
        if missing:
            raise InputError(f"{missing[0]}: no original of this name in {reference} ({len(missing)} such)")
        pairs = Pairs(Set(tuple(low), *_flat([high[name] for name in low])), scale)
        pairs.low = list(low.values())
        for name, small, large in zip(pairs.names, pairs.low, pairs.high, strict=True):
            if tuple(scale * side for side in small.shape[:2]) != large.shape[:2]:
                raise InputError(
                    f"{name}: got {small.shape[1]}x{small.shape[0]} for {large.shape[1]}x{large.shape[0]}; expected a "
                    f"{scale}th of each side"
                )
        return pairs, reference.name or str(reference), "as given"
    if (data / f"{MEASURED[0]}.zip").is_file() or (data / MEASURED[0]).is_dir():
        if scale == 3:
            raise InputError("--scale 3 is for folders of originals; the data folder is measured at 2 or 4")
        config = make_config(UpscaleConfig, {"data": str(data), "scale": scale})
        return read_pairs(config, "held-out"), HELD_OUT, made
    return Pairs(read_folder(data), scale), data.name or str(data), made


def _read_faces(data: Path, scale: int) -> tuple[Pairs, str, str]:
    """Read the held-out faces of the data folder."""
    from velatura.training.data import read_set
    from velatura.training.recipes.upscale import Pairs

    return Pairs(read_set(data, FACES, "held-out"), scale), f"what is held out of {FACES}", BY_BICUBIC


def _by_stem(images: Any) -> dict[str, NDArray[np.uint8]]:
    return {Path(name).with_suffix("").as_posix(): images[i] for i, name in enumerate(images.names)}


def _flat(images: Images) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.concatenate([one.ravel() for one in images]), np.array([one.shape for one in images], np.int64)


def _features() -> Any:
    """Read the features that the perceptual distance is measured in; None while the package holds none."""
    from velatura.catalog import cards
    from velatura.perceptual import load_features

    return load_features() if any(card.name == "features" for card in cards()) else None


def _measure(images: Images, pairs: Pairs, features: Any, faces: bool) -> list[NDArray[np.float64]]:
    """Give the figures of each image, without the gain."""
    from velatura.metrics.perceptual import embedding_distance, perceptual_distance
    from velatura.training.recipes.upscale import fidelity
    from velatura.training.recipes.upscale_gan import color_shift

    figures = list(fidelity(images, pairs).values())
    both = list(zip(images, pairs.high, strict=True))
    if features is not None:
        figures.append(np.array([perceptual_distance(one, original, features) for one, original in both]))
    figures.append(np.array([color_shift(one, low) for one, low in zip(images, pairs.low, strict=True)]))
    if faces and features is not None:
        figures.append(np.array([embedding_distance(one, original, features) for one, original in both]))
    return figures


# --- the map of the evidence ------------------------------------------------------------------------------------------


def local_errors(image: NDArray, original: NDArray, scale: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give, for each pixel of the low resolution, the detail that a result shows in it and its error.

    Parameters
    ----------
    image, original : ndarray of uint8, (scale h, scale w, 3)
    scale : int

    Returns
    -------
    variance, error : ndarray, (h, w)
        Variance of the result's luma and mean squared error of luma, in units of white.
    """

    def mean(values: NDArray) -> NDArray:
        height, width = (side // scale for side in values.shape)
        return values.reshape(height, scale, width, scale).mean((1, 3))

    ours, true = (one @ np.array(LUMA) / 255 for one in (image, original))
    return np.maximum(mean(ours**2) - mean(ours) ** 2, 0), mean((ours - true) ** 2)


def _evidence(name: str, images: Images, pairs: Pairs, task: Upscale) -> list[str]:
    """Fit on every other photograph and say how the map agrees with the errors of the others."""
    if len(images) < LEAST:
        return []
    found = [local_errors(*both, pairs.scale) for both in zip(images, pairs.high, strict=True)]
    fitted = fit_calibration(*(np.concatenate([one[part].ravel() for one in found[::2]]) for part in (0, 1)))
    words = f"Evidence of {name}, fitted to half of the photographs: limit {fitted.limit:.3g}, knee {fitted.knee:.3g}"
    return [f"{words}; on the other half {_agreement(fitted, found[1::2])}."] + [
        f"Evidence of {name} as shipped: limit {shipped.limit:.3g}, knee {shipped.knee:.3g}; "
        f"on the same half {_agreement(shipped, found[1::2])}."
        for shipped in (task.calibration(pairs.scale),)
        if shipped != fitted
    ]


def _agreement(calibration: Calibration, found: Sequence[tuple[NDArray, NDArray]]) -> str:
    """Say how the map agrees with what is wrong in photographs: in rank, and in figures."""
    from scipy.ndimage import uniform_filter
    from scipy.stats import rankdata

    shares = [calibration.share(seen) for seen, _ in found]
    ranks = [
        float(np.corrcoef(rankdata(share), rankdata(wrong))[0, 1])
        for share, (_, wrong) in zip(shares, found, strict=True)
    ]
    one = bootstrap(ranks)
    told, wrong, detail = (
        np.concatenate([values.ravel() for values in many])
        for many in (shares, [wrong for _, wrong in found], [uniform_filter(seen, 3) for seen, _ in found])
    )
    fifths = np.array_split(np.argsort(told), 5)
    pairs = (
        f"{told[part].mean():.2f}/{wrong[part].mean() / (wrong[part].mean() + detail[part].mean() + FLOOR**2):.2f}"
        for part in fifths
    )
    return (
        f"its rank correlation with the local error is {one.value:.3f} [{one.low:.3f}, {one.high:.3f}], and the share "
        f"that it tells against the one measured, in fifths: {', '.join(pairs)}"
    )


# --- sheets for the eye -----------------------------------------------------------------------------------------------


def write_sheet(results: Mapping[str, Images], pairs: Pairs, folder: Path) -> None:
    """Write a sheet to compare by eye without knowing what is what, and the key to it in another file.

    Each row holds the most detailed part of one photograph, by every model and the original, in an order of its own.

    Parameters
    ----------
    results : mapping of str to list of ndarray of uint8
        Name -> one image per pair.
    pairs : Pairs
    folder : Path
        For ``sheet.png`` and ``key.csv``; made if need be.
    """
    from velatura.cli.demo import contact_sheet

    shown = {**results, "original": pairs.high}
    random = np.random.default_rng(SEED)
    rows, key = [], []
    for index in np.linspace(0, len(pairs) - 1, min(ROWS, len(pairs))).round().astype(int):
        order = random.permutation(list(shown))
        place = _detailed(pairs.high[index])
        letters = [f"{len(rows) + 1}{chr(ord('a') + i)}" for i in range(len(order))]
        crops = (shown[name][index][place].repeat(MAGNIFIED, 0).repeat(MAGNIFIED, 1) for name in order)
        rows.append(dict(zip(letters, crops, strict=True)))
        key += [(letter, name, pairs.names[index]) for letter, name in zip(letters, order, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    save_image(contact_sheet(rows, width=CROP * MAGNIFIED, text=14), folder / "sheet.png", overwrite=False)
    with (folder / "key.csv").open("x", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("picture", "made by", "photograph"), *key])


def _detailed(image: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Find the square where most is to be seen."""
    from scipy.ndimage import uniform_filter

    luma = image @ np.array(LUMA)
    side = min(CROP, *luma.shape)
    edges = np.hypot(*np.gradient(luma))
    busy = uniform_filter(edges, side, mode="constant")
    half = side // 2
    inner = busy[half : luma.shape[0] - side + half + 1, half : luma.shape[1] - side + half + 1]
    top, left = np.unravel_index(inner.argmax(), inner.shape)
    return slice(int(top), int(top) + side), slice(int(left), int(left) + side)
