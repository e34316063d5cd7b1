"""What ``velatura evaluate restore`` measures: fidelity, damage found, harm done, fading, faces, chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from velatura import catalog
from velatura.errors import InputError, MachineError, ModelError
from velatura.image import save_image
from velatura.metrics.report import Column, Interval, Report, bootstrap
from velatura.tasks.restore import DETECTOR, FACES, Restore

if TYPE_CHECKING:
    from velatura.training.recipes.old_scans import ScansConfig, Worn

__all__ = ["Part", "detection", "evaluate_restore", "grey_world", "noise_of", "stretched"]

Part = Literal["fidelity", "clean", "scratches", "labels", "fading", "faces", "chain", "estimator", "finder"]
Pixels = NDArray[np.uint8]
Progress = Callable[[int, int, str], None]
#: From a scan, and what is true of it, to a result.
Way = Callable[["Worn", Pixels], Pixels]

DAMAGED = ("unstructured", "lines", "areas", "stains")
FOUND = ("lines", "areas", "unseen")
SCAN, MEANS, HAT = "scan", "non-local means", "top-hat"
USUAL = "Telea and non-local means"
TELEA_RADIUS = 3  # pixels, OpenCV's own example
STEPS = 500  # of the score, in which average precision is summed
CANDIDATES = 99  # thresholds that the top-hat may choose from
DRAWS = 2000  # of the bootstrap
BLOCK = 16  # pixels: means over so many hold no noise
SCALE = 2  # of the chain
SHOWN, SHOWN_SIDE = 6, 256  # pictures on a sheet, and their width in pixels


@dataclass(frozen=True, slots=True)
class _Work:
    """What is measured, on what."""

    tasks: Mapping[str, Restore]
    models: Mapping[str, str]
    config: ScansConfig
    data: Path
    count: int
    side: int
    sheet: Path | None
    progress: Progress

    @property
    def judged(self) -> str:
        """The first model."""
        return next(iter(self.tasks))

    def scans(self, kind: str) -> list[Worn]:
        """Give held-out scans."""
        from velatura.training.recipes.old_scans import held_out_scans

        return held_out_scans(self.config, kind, self.count, self.side)

    def made(self, scans: Sequence[Worn], ways: Mapping[str, Way], stage: str) -> dict[str, list[Pixels]]:
        """Send scans through all ways."""
        found: dict[str, list[Pixels]] = {name: [] for name in ways}
        for done, scan in enumerate(scans):
            self.progress(done, len(scans), stage)
            image = _eight_bit(scan.image)
            for name, way in ways.items():
                found[name].append(way(scan, image))
        return found

    def write_sheet(self, name: str, columns: Mapping[str, Sequence[Pixels]]) -> None:
        """Write a row of pictures per image, if sheets are wanted."""
        if self.sheet is None:
            return
        from velatura.cli.demo import contact_sheet

        rows = [
            {f"{index + 1} {label}": images[index] for label, images in columns.items()}
            for index in range(min(SHOWN, len(next(iter(columns.values())))))
        ]
        self.sheet.mkdir(parents=True, exist_ok=True)
        save_image(contact_sheet(rows, width=SHOWN_SIDE, text=14), self.sheet / f"{name}.png", overwrite=False)


def evaluate_restore(
    models: Sequence[str],
    data: Path,
    *,
    part: Part = "fidelity",
    limit: int | None = None,
    sheet: Path | None = None,
    progress: Progress = lambda done, total, stage: None,
) -> Report:
    """Measure restoration on held-out photographs, worn as old scans are.

    Parameters
    ----------
    models : sequence of str
        Names of the catalog, or files; the first is the one that is judged.
    data : Path
        The data folder, of which what is held out is taken; or any folder of clean photographs, of which every
        twentieth is measured.
    part : {"fidelity", "clean", "scratches", "labels", "fading", "faces", "chain"}
        What is measured: noise, blur and damage undone; harm done to clean photographs; damage found, drawn or marked
        by hand on real photographs; colour; faces inside their boxes; restoring, then enlarging.
    limit : int, optional
        Photographs of a kind at most.
    sheet : Path, optional
        Folder for sheets of pictures (fidelity, labels); made if need be.
    progress : callable
        ``progress(done, total, stage)``.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        No photographs, two models of one name, or a sheet that is there already.
    ModelError
        A model is unknown or refused, or one that the part needs is not there.
    MachineError
        What training needs is not installed.
    """
    try:
        from velatura.training.recipe import make_config
        from velatura.training.recipes.old_scans import ScansConfig
        from velatura.training.recipes.restore import ALL
    except ImportError as error:
        raise MachineError(f"{error.name} is not installed; pip install 'velatura[train]'") from None

    if sheet is not None:
        if part not in ("fidelity", "labels"):
            raise InputError(f"--sheet belongs to --part fidelity and labels; {part} has none")
        if sheet.is_dir() and any(sheet.glob("*.png")):
            raise InputError(f"{sheet}: holds an earlier sheet; name another folder")
    named: dict[str, str] = {}
    for model in models:
        if Path(model).stem in named:
            raise InputError(f"two models are called {Path(model).stem}; give one of the files another name")
        named[Path(model).stem] = model
    is_ours = any((data / f"{name}.zip").is_file() or (data / name).is_dir() for name in ("sr_t91_bsds400", "faces256"))
    config = make_config(ScansConfig, {"data" if is_ours else "photographs": str(data)})
    tasks = {name: Restore(model) for name, model in named.items()}
    count, side = ALL
    work = _Work(tasks, named, config, data, min(count, limit or count), side, sheet, progress)
    return _PARTS[part](work)


# --- the ways ---------------------------------------------------------------------------------------------------------


def noise_of(image: Pixels) -> float:
    """Estimate the deviation of an image's noise: the median of its finest diagonal details, in units of white.

    Donoho and Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage", section 4.2, with Haar's wavelet; the
    mean over the channels.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(128, 20, (200, 200, 3))
    >>> round(255 * noise_of(noise.round().clip(0, 255).astype(np.uint8)))
    20
    """
    planes = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2].astype(np.float64) / 255
    details = (planes[::2, ::2] - planes[1::2, ::2] - planes[::2, 1::2] + planes[1::2, 1::2]) / 2
    return float(np.median(np.abs(details), axis=(0, 1)).mean() / 0.6745)  # the normal distribution's median deviation


def _means(image: Pixels) -> Pixels:
    """Take noise away by non-local means, as strong as the noise is."""
    from skimage.restoration import denoise_nl_means

    sigma = noise_of(image)
    # h, patch and reach: scikit-image's own advice for the fast mode.
    made = denoise_nl_means(
        image / 255, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
    )
    return _eight_bit(made) if sigma else image


def _usual(image: Pixels, mask: NDArray) -> Pixels:
    """Fill by Telea's method, then take noise away."""
    import cv2

    cv2.setNumThreads(1)
    return _means(
        np.asarray(cv2.inpaint(image, (mask > 0).astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA), np.uint8)
    )


def _ours(task: Restore, image: Pixels, scratches: Any = "auto", **params: Any) -> Pixels:
    return task(image, scratches, **params).image


def _alone(task: Restore) -> dict[str, Any]:
    """Leave colours and faces alone, where that can be said."""
    return {"faces": False} if task.network.undoes_fading else {"faces": False, "fading": False}


def grey_world(image: Pixels) -> Pixels:
    """Give all channels the same mean."""
    means = image.mean((0, 1))
    return np.rint((image * (means.mean() / np.maximum(means, 1e-6))).clip(0, 255)).astype(np.uint8)


def stretched(image: Pixels) -> Pixels:
    """Stretch every channel from its smallest value to its largest over the whole range."""
    low, high = (edge((0, 1)).astype(float) for edge in (image.min, image.max))
    return np.rint((255 * (image - low) / np.maximum(high - low, 1)).clip(0, 255)).astype(np.uint8)


def _eight_bit(image: NDArray) -> Pixels:
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


# --- fidelity ---------------------------------------------------------------------------------------------------------


def _fidelity(work: _Work) -> Report:
    """Noise and blur undone; damage filled, found by ourselves or given."""
    from velatura.metrics.fidelity import RGB

    rows: dict[str, list[Interval]] = {}
    count = 0
    has_telea = find_spec("cv2") is not None
    lines = work.scans("lines") if has_telea else []
    threshold = _best([_hat(scan.image) for scan in lines], [scan.mask for scan in lines]) if has_telea else 0.0
    notes = [] if has_telea else ["No Telea: OpenCV is not installed (pip install 'velatura[bench]')."]
    for kind in DAMAGED:
        scans = work.scans(kind)
        ways: dict[str, Way] = {SCAN: lambda scan, image: image, MEANS: lambda scan, image: _means(image)}
        if has_telea:
            ways[f"{USUAL} ({HAT})"] = lambda scan, image: _usual(image, _hat(scan.image) > threshold)
            ways[f"{USUAL} (true mask)"] = lambda scan, image: _usual(image, scan.damage)
        for name, task in work.tasks.items():
            ways[name] = lambda scan, image, task=task: _ours(task, image, **_alone(task))
            ways[f"{name} (true mask)"] = lambda scan, image, task=task: _ours(task, image, scan.damage, **_alone(task))
        made = work.made(scans, ways, kind)
        targets, count = [_eight_bit(scan.faded) for scan in scans], len(scans)
        figures = {name: _scores(images, targets) for name, images in made.items()}
        for name, (ratio, similarity) in figures.items():
            values = (ratio, similarity, ratio - figures[SCAN][0])
            rows[f"{name}, {kind}"] = [bootstrap(value) for value in values]
        work.write_sheet(kind, {**{name: made[name] for name in (SCAN, *list(ways)[-3:])}, "original": targets})
    return Report(
        title="Restoration of worn photographs",
        protocol=(
            f"{RGB}. Held-out photographs, {work.side}x{work.side} at most, worn by velatura.ops.damage.old_scan with "
            "fixed seeds: unstructured = blur, noise, JPEG, reduction; lines, areas, stains = the same, and over it "
            "scratches, hairs, dust, creases, tears, ink; holes, patches; stains; no fading, faces not refined. "
            "Non-local means (scikit-image) are as strong as the noise estimated by the median of Haar's diagonal "
            "details; the top-hat has its best threshold on these very scans with lines. Damage is found by "
            f"{DETECTOR}, or the true mask given."
        ),
        data=_words(work),
        count=count,
        columns=[
            Column("PSNR", "dB", "higher"),
            Column("SSIM", "", "higher", digits=4),
            Column("gain over the scan", "dB", "higher"),
        ],
        rows=rows,
        model=work.judged,
        baseline=f"{USUAL} (true mask)" if has_telea else MEANS,
        notes=notes,
    )


def _scores(images: Sequence[Pixels], targets: Sequence[Pixels]) -> tuple[NDArray, NDArray]:
    """PSNR and SSIM of each image."""
    from velatura.metrics.fidelity import RGB, psnr, ssim

    pairs = list(zip(images, targets, strict=True))
    return np.array([psnr(a, b, RGB) for a, b in pairs]), np.array([ssim(a, b, RGB) for a, b in pairs])


def _clean(work: _Work) -> Report:
    """What happens to photographs that nothing has happened to."""
    scans = work.scans("clean")
    targets = [_eight_bit(scan.image) for scan in scans]
    rows: dict[str, list[Interval]] = {}

    def add(name: str, images: Sequence[Pixels], flagged: Sequence[float]) -> None:
        shifts = [np.abs(a.mean((0, 1)) - b.mean((0, 1))).max() for a, b in zip(images, targets, strict=True)]
        rows[name] = [bootstrap(flagged), bootstrap(_scores(images, targets)[1]), bootstrap(shifts)]

    add(MEANS, work.made(scans, {MEANS: lambda scan, image: _means(image)}, MEANS)[MEANS], [0.0] * len(scans))
    for name, task in work.tasks.items():
        settings = (
            {name: {}} if task.network.undoes_fading else {name: {}, f"{name} (colours alone)": {"fading": False}}
        )
        for label, params in settings.items():
            images, flagged = [], []
            for done, target in enumerate(targets):
                work.progress(done, len(targets), label)
                result = task(target, mask_out=True, **params)
                images.append(result.image)
                flagged.append(100 * float((result.maps["mask_out"].pixels > 127).mean()))
            add(label, images, flagged)
    return Report(
        title="Restoration of clean photographs",
        protocol=(
            "Held-out photographs that nothing happened to, some without colour, restored as usual. Flagged: pixels "
            "taken for damage. Shift of the mean colour: the largest of the three channels."
        ),
        data=_words(work),
        count=len(scans),
        columns=[
            Column("flagged", "%", digits=3),
            Column("SSIM", "", "higher", digits=4),
            Column("shift of the mean colour", "grey levels"),
        ],
        rows=rows,
        model=work.judged,
        baseline=MEANS,
    )


# --- damage found -----------------------------------------------------------------------------------------------------


def detection(
    scores: Sequence[NDArray], truth: Sequence[NDArray], threshold: float, seed: int = 0
) -> tuple[Interval, Interval, Interval, Interval]:
    """Say how well scores tell damaged pixels, those of all images pooled; intervals by bootstrap over images.

    Parameters
    ----------
    scores, truth : sequence of ndarray
        Of each image, in any shape: how likely each pixel is damaged, and whether it is.
    threshold : float
        What lies above it is found.

    Returns
    -------
    f1, average_precision, precision, recall : Interval

    Examples
    --------
    >>> truth, scores = np.array([1, 1, 0, 0]), np.array([0.9, 0.2, 0.8, 0.1])
    >>> [round(one.value, 3) for one in detection([scores], [truth], 0.5)]
    [0.5, 0.833, 0.5, 0.5]
    """
    damaged = [np.ravel(one) > 0.5 for one in truth]
    values = [np.ravel(one) for one in scores]
    pooled = np.concatenate([one[is_damaged] for one, is_damaged in zip(values, damaged, strict=True)])
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, STEPS))) if len(pooled) else np.zeros(1)
    counts = []
    for one, is_damaged in zip(values, damaged, strict=True):
        place = np.searchsorted(edges, one, "right")
        found = one > threshold
        counts.append(
            np.concatenate(
                [
                    [(found & is_damaged).sum(), found.sum(), is_damaged.sum()],
                    *(np.bincount(place[which], minlength=len(edges) + 1)[::-1] for which in (is_damaged, ~is_damaged)),
                ]
            )
        )
    table = np.array(counts, np.float64)
    random = np.random.default_rng(seed)
    drawn = random.multinomial(len(table), np.full(len(table), 1 / len(table)), size=DRAWS)
    figures = _detection_figures(np.concatenate([np.ones((1, len(table))), drawn]) @ table)
    return tuple(  # type: ignore[return-value]
        Interval(float(values[0]), *(float(end) for end in np.percentile(values[1:], [2.5, 97.5])))
        for values in figures
    )


def _detection_figures(sums: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """F1, average precision, precision and recall, (draws,) each, of summed counts."""
    both, found, damaged = sums[:, :3].T
    hits, misses = np.split(sums[:, 3:], 2, axis=1)
    all_hits = np.cumsum(hits, 1)
    precise = all_hits / np.maximum(all_hits + np.cumsum(misses, 1), 1)
    average = (hits * precise).sum(1) / np.maximum(damaged, 1)
    return (
        2 * both / np.maximum(found + damaged, 1),
        average,
        both / np.maximum(found, 1),
        both / np.maximum(damaged, 1),
    )


def _best(scores: Sequence[NDArray], truth: Sequence[NDArray]) -> float:
    """Give the threshold of the best F1 on these very images."""
    from velatura.training.recipes.scratches import best_threshold

    flat = [np.concatenate([np.ravel(one) for one in many]) for many in (truth, scores)]
    return best_threshold(*flat) if flat[0].any() else float(flat[1].max())


def _hat(image: NDArray) -> NDArray:
    from velatura.training.recipes.scratches import top_hat

    return top_hat(image)


def _probabilities(work: _Work, images: Sequence[NDArray], stage: str) -> list[NDArray]:
    from velatura.training.recipes.scratches import probabilities

    network, found = work.tasks[work.judged].detector.network, []
    for done, image in enumerate(images):
        work.progress(done, len(images), stage)
        found.append(probabilities(network, image))
    return found


def _scratches(work: _Work) -> Report:
    """Damage found on worn photographs."""
    threshold, rows, count = work.tasks[work.judged].detector.threshold, {}, 0
    for kind in FOUND:
        scans = work.scans(kind)
        images, truth, count = [scan.image for scan in scans], [scan.mask for scan in scans], len(scans)
        rows[f"{DETECTOR}, {kind}"] = detection(_probabilities(work, images, kind), truth, threshold)
        hats = [_hat(image) for image in images]
        rows[f"{HAT}, {kind}"] = detection(hats, truth, _best(hats, truth))
    return _detection_report(
        "Damage found on worn photographs",
        f"Held-out photographs, {work.side}x{work.side} at most, worn with fixed seeds, noise and all; exact pixels, "
        "damaged where a mark covers more than a quarter of one; the family of `unseen` was never trained on.",
        _words(work),
        count,
        rows,
        threshold,
    )


def _labels(work: _Work) -> Report:
    """Damage found on real photographs."""
    from velatura.training.old_photo_labels import SIDE, read_labelled

    crops = read_labelled(work.data)[: work.count]
    images = [crop.image for crop in crops]
    found = _probabilities(work, images, "labels")
    hats = [_hat(image) for image in images]
    threshold = work.tasks[work.judged].detector.threshold

    rows, best = {}, 0.0
    for kind in ("lines and spots", "all marks"):
        counts = [crop.counts & ~(crop.is_area & (kind != "all marks")) for crop in crops]
        truth = _counted([crop.mask for crop in crops], counts)
        best = _best(_counted(hats, counts), truth)
        rows[f"{DETECTOR}, {kind}"] = detection(_counted(found, counts), truth, threshold)
        rows[f"{HAT}, {kind}"] = detection(_counted(hats, counts), truth, best)
    whole = [one for one, crop in zip(found, crops, strict=True) if not crop.mask.any()]
    flagged = f"{100 * float(np.mean([one > threshold for one in whole])):.2f} %" if whole else "none"
    shown = sorted(range(len(crops)), key=lambda i: -crops[i].mask.mean())[:SHOWN]
    columns = {
        "crop": [_eight_bit(one) for one in images],
        "found": [_eight_bit(one > threshold) for one in found],
        "top-hat": [_eight_bit(one > best) for one in hats],
        "marked": [_eight_bit(crop.mask) for crop in crops],
    }
    work.write_sheet("labels", {name: [many[i] for i in shown] for name, many in columns.items()})
    return replace(
        _detection_report(
            "Damage found on real old photographs",
            f"Crops of {SIDE}x{SIDE} pixels, marked by hand; what could not be told by eye does not count, "
            "nor do pixels that touch a mark; of lines and spots, nor do marked areas.",
            "old_photos",
            len(crops),
            rows,
            threshold,
        ),
        things="crops",
        notes=[f"Of the pixels of crops without a mark {flagged} are flagged."],
    )


def _counted(values: Sequence[NDArray], counts: Sequence[NDArray]) -> list[NDArray]:
    return [one[which] for one, which in zip(values, counts, strict=True)]


def _detection_report(
    title: str, protocol: str, data: str, count: int, rows: Mapping[str, Sequence[Interval]], threshold: float
) -> Report:
    return Report(
        title=title,
        protocol=(
            f"{protocol} Pixels of all images pooled, at the shipped threshold of {threshold:.3g}; the top-hat has its "
            f"best threshold on these very images. Average precision is summed in {STEPS} steps of the score."
        ),
        data=data,
        count=count,
        columns=[Column(name, "", "higher", digits=3) for name in ("F1", "average precision", "precision", "recall")],
        rows=rows,
        model=DETECTOR,
        baseline=HAT,
    )


# --- colour, faces, chains --------------------------------------------------------------------------------------------


def _fading(work: _Work) -> Report:
    """Fading and yellowing undone."""
    from velatura.metrics.fidelity import color_error

    scans = work.scans("faded")
    ways: dict[str, Way] = {
        SCAN: lambda scan, image: image,
        "grey-world": lambda scan, image: grey_world(image),
        "min/max": lambda scan, image: stretched(image),
        **{name: lambda scan, image, task=task: _ours(task, image, faces=False) for name, task in work.tasks.items()},
    }
    targets = [_eight_bit(scan.original) for scan in scans]
    rows = {}
    for name, images in work.made(scans, ways, "fading").items():
        pairs = list(zip(images, targets, strict=True))
        blocks = [(_blocks(image), _blocks(target)) for image, target in pairs]
        rows[name] = [bootstrap([color_error(*pair) for pair in many]) for many in (pairs, blocks)]
    return Report(
        title="Fading and yellowing undone",
        protocol=(
            "Held-out photographs, some without colour, faded, yellowed, and worn without damage, with fixed seeds; "
            f"CIEDE2000 against the photograph, mean over pixels, and over means of {BLOCK}x{BLOCK} pixels, which hold "
            "no noise."
        ),
        data=_words(work),
        count=len(scans),
        columns=[Column("CIEDE2000"), Column(f"CIEDE2000 of {BLOCK}x{BLOCK}")],
        rows=rows,
        model=work.judged,
        baseline=SCAN,
    )


def _blocks(image: Pixels) -> NDArray[np.float64]:
    """Average in blocks; what is left over at the borders is left out."""
    height, width = (side // BLOCK for side in image.shape[:2])
    kept = image[: height * BLOCK, : width * BLOCK] / 255
    return kept.reshape(height, BLOCK, width, BLOCK, 3).mean((1, 3))


def _faces(work: _Work) -> Report:
    """Faces refined, inside their boxes."""
    from velatura.metrics.fidelity import RGB
    from velatura.ops.damage import old_scan
    from velatura.training.data import read_set
    from velatura.training.recipes.face_refiner import box_of, soft
    from velatura.training.recipes.old_scans import HELD_OUT_SEED, KINDS, LINES, PURPOSE

    known = {card.name for card in catalog.cards()}
    if missing := [name for name in FACES if name not in known]:
        raise ModelError(f"faces are refined by {' and '.join(FACES)}; the catalog has no {' and no '.join(missing)}")
    faces = read_set(work.data, "faces256", "held-out", under="color/", purpose=PURPOSE)
    chosen = np.unique(np.linspace(0, len(faces) - 1, min(work.count, len(faces))).round().astype(int))
    rows: dict[str, list[Interval]] = {}
    changed = 0
    kinds = {**{kind: KINDS[kind] for kind in DAMAGED[:2]}, "soft": (soft(faces[0].shape[0]), LINES)}
    for order, (kind, (wear, families)) in enumerate(kinds.items()):
        scans = [
            old_scan(
                faces[i].astype(np.float32) / np.float32(255),
                np.random.default_rng((HELD_OUT_SEED, order, int(i))),
                wear,
                families,
            )
            for i in chosen
        ]
        ways: dict[str, Way] = {SCAN: lambda scan, image: image}
        for name, task in work.tasks.items():
            ways[f"{name} (no faces)"] = lambda scan, image, task=task: _ours(task, image, **_alone(task))
            ways[name] = lambda scan, image, task=task: _ours(task, image, **(_alone(task) | {"faces": True}))
        made = work.made(scans, ways, kind)
        targets = [box_of(_eight_bit(scan.faded)) for scan in scans]
        for name, images in made.items():
            rows[f"{name}, {kind}"] = [bootstrap(value) for value in _scores([box_of(one) for one in images], targets)]
        pairs = zip(made[work.judged], made[f"{work.judged} (no faces)"], strict=True)
        changed += sum(not np.array_equal(*pair) for pair in pairs)
    return Report(
        title="Faces refined",
        protocol=(
            f"{RGB}, inside the face's box. Held-out aligned faces, worn with fixed seeds, no fading: unstructured and "
            "lines as photographs are; soft: no damage, but far out of focus (a blur of 1.2 to 3 % of the crop's side)."
        ),
        data="what is held out of faces256",
        count=len(chosen),
        columns=[Column("PSNR", "dB", "higher"), Column("SSIM", "", "higher", digits=4)],
        rows=rows,
        model=work.judged,
        baseline=f"{work.judged} (no faces)",
        notes=[f"Faces were found and changed on {changed} of {len(kinds) * len(chosen)} scans."],
    )


def _chain(work: _Work) -> Report:
    """Restoring, then enlarging, beside either alone."""
    from velatura.metrics.fidelity import RGB
    from velatura.ops.damage import old_scan
    from velatura.ops.resize import resize
    from velatura.pipeline import Pipeline, Step
    from velatura.tasks.upscale import MODEL, Upscale
    from velatura.training.recipes.old_scans import HELD_OUT_SEED, KINDS

    wear, families = KINDS["lines"]
    originals = [_even(scan.original) for scan in work.scans("clean")]
    reduced = [
        resize(one, one.shape[0] // SCALE, one.shape[1] // SCALE, "area").clip(0, 1).astype(np.float32)
        for one in originals
    ]
    # Whether a photograph has colour was drawn already.
    scans = [
        old_scan(one, np.random.default_rng((HELD_OUT_SEED, len(KINDS), i)), replace(wear, grey=0.0), families)
        for i, one in enumerate(reduced)
    ]
    enlargers = {name: Upscale(name) for name in ("bicubic", MODEL)}
    ways: dict[str, Way] = {
        name: lambda scan, image, task=task: task(image, scale=SCALE).image for name, task in enlargers.items()
    }
    for name, model in work.models.items():
        restore = Step("restore", {"model": model, **_alone(work.tasks[name])})
        for enlarger in enlargers:
            pipeline = Pipeline([restore, Step("upscale", {"model": enlarger, "scale": SCALE})])
            ways[f"{name} then {enlarger}"] = lambda scan, image, pipeline=pipeline: pipeline(image).image
    targets = [_eight_bit(one) for one in originals]
    rows = {
        name: [bootstrap(value) for value in _scores(images, targets)]
        for name, images in work.made(scans, ways, "chain").items()
    }
    return Report(
        title=f"Restored, then enlarged x{SCALE}",
        protocol=(
            f"{RGB}. Held-out photographs reduced by area to half their sides, then worn as the `lines` of fidelity "
            "are, with fixed seeds; compared with the photograph at its own size."
        ),
        data=_words(work),
        count=len(scans),
        columns=[Column("PSNR", "dB", "higher"), Column("SSIM", "", "higher", digits=4)],
        rows=rows,
        model=f"{work.judged} then {MODEL}",
        baseline="bicubic",
    )


def _even(image: NDArray) -> NDArray:
    """Cut the sides to multiples of the scale."""
    height, width = (side // SCALE * SCALE for side in image.shape[:2])
    return image[:height, :width]


def _words(work: _Work) -> str:
    """Name the photographs."""
    if work.config.photographs:
        return f"every twentieth of {work.data.name or work.data}"
    return "what is held out of BSDS500's train and test parts and of sr_hr_patches"


_PARTS: Mapping[Part, Callable[[_Work], Report]] = {
    "fidelity": _fidelity,
    "clean": _clean,
    "scratches": _scratches,
    "labels": _labels,
    "fading": _fading,
    "faces": _faces,
    "chain": _chain,
}
