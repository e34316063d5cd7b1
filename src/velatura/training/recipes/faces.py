"""Train the face finder: a student of YuNet that has seen faces with holes.

Scenes and labels come from `velatura.training.recipes.face_scenes`. A cell whose place is near the middle of a face
says so and says where its box and landmarks are; cells a little farther, on faces of a size that is another look's, or
on what the teacher is not sure of, are not asked; all others say no. Losses: focal loss (Lin et al. 2017, equation 4),
generalised IoU (Rezatofighi et al. 2019), distances of corners and landmarks in units of the face.

The teacher's file lies beside the data folder in ``pretrained``, unless a setting names another folder. It is never
shipped, and nothing of it goes into the student's file.
"""

from __future__ import annotations

import hashlib
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from velatura.errors import InputError
from velatura.faces import Face, find_faces
from velatura.metrics.report import bootstrap
from velatura.nets.face_finder import BAND, STRIDE, FaceFinder, cells, decode
from velatura.training import data
from velatura.training.muon import Muon
from velatura.training.recipe import TrainConfig
from velatura.training.recipes.face_scenes import (
    ALIGNED,
    SURE,
    TEACHER,
    UNSURE,
    Labels,
    Scene,
    Scenes,
    cover,
    damage,
    places,
    read_labels,
)

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = ["FaceFinderConfig", "TrainFaceFinder"]

SHORTEST = {"faces128": 96, "faces256": 96, "sr_hr_patches": 320}  # pixels; more is never seen
PASTED = (12.0, 62.0)  # sizes of pasted faces in pixels, a little beyond the net's band
NEAR, MIDDLE = 0.2, 0.4  # distances from the centre, in the box's sides: a cell that says yes; one that is not asked
ASKED = (0.85 * BAND[0], 1.15 * BAND[1])  # sizes that are to be found
ALLOWED = 1.4 * BAND[1]  # larger faces are nothing at this size; smaller ones than asked are allowed
FOCUS, BALANCE = 2.0, 0.6  # of the focal loss: its exponent, and the weight of yes against 1 - of no

PHOTOGRAPHS = ("old_photos", "sr_hr_patches", "sr_t91_bsds400")
SMALLEST = 24.0  # pixels: the smallest face of the teacher's that counts
ENOUGH = 0.5  # intersection over union of a face that is found
COVERED = 1 / 3  # of a face's box
SCENES, SCENE_SIDE = 100, 320  # held-out scenes made of held-out faces and backgrounds, and their side in pixels
SCENE_SIZES = (24.0, 120.0)  # of the faces on them
ENLARGED = 4  # times, of landscapes: 96 pixels are few
TIMED = (640, 640)  # pixels
SHEET_SIDE = 320  # of a picture on a sheet


class FaceFinderConfig(TrainConfig):
    """Settings of `TrainFaceFinder`."""

    pretrained: str | None = Field(None, description="folder of the teacher; else `pretrained` beside the data folder")
    labels: str | None = Field(None, description="file of the teacher's labels (.npz); made if it is not there")
    sets: dict[str, float] = Field({}, description="backgrounds, and the share of the scenes that each gives")
    side: int = Field(160, ge=32, multiple_of=8, description="of a scene, in pixels")
    stem: tuple[int, int] = Field((16, 32), description="channels at strides 2 and 4")
    width: int = Field(64, ge=1, description="channels at stride 8")
    blocks: tuple[int, int] = Field((1, 3), description="residual blocks at strides 4 and 8")
    matrix_rate: float = Field(0, ge=0, description="Muon's rate for the inner convolutions; 0 = Adam for all")
    covered: float = Field(0.5, ge=0, le=1, description="share of the scenes whose faces have holes")


class TrainFaceFinder:
    """The recipe of `velatura.nets.face_finder.FaceFinder`."""

    name = "face-finder"
    architecture = "FaceFinder"

    def __init__(self, config: FaceFinderConfig) -> None:
        self.config = config
        self.arguments = {"stem": list(config.stem), "width": config.width, "blocks": list(config.blocks)}
        torch.manual_seed(config.seed)
        self.finder = FaceFinder(**self.arguments)
        self.networks: dict[str, nn.Module] = {"finder": self.finder}

    def optimizers(self) -> dict[str, Optimizer]:
        """Muon for what is between the first and the last layer, Adam for the rest, or Adam for all."""
        if self.config.matrix_rate:
            plain = (self.finder.first, self.finder.last)
            return {"finder": Muon(self.finder, self.config.matrix_rate, self.config.learning_rate, plain)}
        return {"finder": Adam(self.finder.parameters(), lr=self.config.learning_rate)}

    @cached_property
    def scenes(self) -> Scenes:
        """Training scenes; read when the first batch is drawn."""
        return self._scenes("train")

    @cached_property
    def held(self) -> dict[str, list[tuple[NDArray[np.uint8], NDArray[np.float32]]]]:
        """Held-out images and the teacher's faces on them, by kind: always the same."""
        photographs = []
        for name in PHOTOGRAPHS:
            images = data.read_set(self._folder, name, "held-out", purpose="upscale")
            labels = self._labels(images)
            # What the teacher finds in the photograph as it is; enlarged looks are for training.
            rows = [labels[n][labels[n][:, 15] == 1] for n in images.names]
            photographs += [(images[i], _wanted(rows[i], images[i])) for i in range(len(images))]
        source, made = self._scenes("held-out"), []
        for index in range(SCENES):
            rng = np.random.default_rng((SCENES, index))
            made.append(source.draw(rng, SCENE_SIDE, SCENE_SIZES, most=4, calm=True).image)
        composed = _as_images(made)
        found = self._labels(composed)
        return {
            "photographs": photographs,
            "scenes": [(image, _wanted(found[n], image)) for n, image in zip(composed.names, made, strict=True)],
        }

    @cached_property
    def landscapes(self) -> data.Images:
        """Held-out landscapes."""
        return data.read_set(self._folder, "scenes96", "held-out")

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Images (N, 3, S, S); per cell what is asked (N, h, w): 1 yes, 0 no, -1 nothing; boxes and landmarks."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        images, asked, truth = [], [], []
        for _ in range(self.config.batch_size):
            image, scene = self._damaged(rng)
            kinds, values = targets(scene, self.config.side)
            images.append(image)
            asked.append(kinds)
            truth.append(values)
        pixels = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255
        return torch.from_numpy(pixels), torch.from_numpy(np.stack(asked)), torch.from_numpy(np.stack(truth))

    def _damaged(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Scene]:
        scene = self.scenes.draw(rng, self.config.side, PASTED)
        image, faces, unsure = scene.image, scene.faces, scene.unsure
        if rng.random() < self.config.covered:
            share = rng.uniform(0.05, 0.5)
            image, covered = cover(image, faces, rng, (0.5 * share, share))
            # Of a face that is almost gone nothing is asked.
            unsure = np.concatenate([unsure, faces[covered > 0.65]])
            faces = faces[covered <= 0.65]
        if rng.random() < 0.3:
            corner = rng.uniform(-0.1, 0.9, (2, 2)) * self.config.side
            boxes = np.concatenate([corner, corner + rng.uniform(12, 60, (2, 2))], axis=1)
            image = _beside(image, boxes.astype(np.float32), np.concatenate([faces, unsure]), rng)
        return damage(image, rng), Scene(image, faces, unsure)

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Compare with the labels, cell by cell."""
        images, asked, truth = batch
        maps = training.networks["finder"](images)
        yes = asked == 1
        count = yes.sum().clamp(min=1)
        score = focal(maps[:, 0], asked) / count
        boxes, landmarks = decode(maps, cells(images))
        # (cells that say yes, values)
        found = torch.cat([boxes, landmarks.flatten(1, 2)], dim=1).permute(0, 2, 3, 1)[yes]
        wanted = truth.permute(0, 2, 3, 1)[yes]
        overlap = generalised_iou(found[:, :4], wanted[:, :4])
        size = (wanted[:, 2:4] - wanted[:, :2]).clamp(min=1).prod(1).sqrt()[:, None]
        away = ((found - wanted) / size).abs()
        box = (1 - overlap).sum() / count
        corners, points = away[:, :4].mean(1).sum() / count, away[:, 4:].mean(1).sum() / count
        loss = score + box + 2 * corners + 5 * points
        training.descend("finder", loss)
        return {
            "loss": loss.detach(),
            "score": score.detach(),
            "box": box.detach(),
            "corners": corners.detach(),
            "landmarks": points.detach(),
        }

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """What `evaluate` finds, without the intervals."""
        return {name: row[0] for name, row in self.evaluate(network)["rows"].items()}

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Find faces on images that are never trained on.

        Returns
        -------
        dict
            ``rows[name]`` = mean, low, high (95 %):
            ``photographs``, ``scenes``: share of the teacher's faces, `SMALLEST` pixels and up, that are found with an
            intersection over union of `ENOUGH`; ``photographs_covered``, ``scenes_covered``: the same with a third of
            each face's box erased; ``extra``: boxes per photograph where the teacher finds nothing, not even unsure;
            ``landmarks``: their mean distance from the teacher's in sizes of the face, over the faces found, and
            ``landmarks_covered``; ``landscapes``, ``landscapes_enlarged``: boxes per landscape; ``milliseconds``: of
            one core for a picture of 640 by 640. ``counts``: faces and images behind each figure.
        """
        network.eval()
        series: dict[str, list[float]] = {"landmarks": [], "landmarks_covered": [], "extra": []}
        for name, images in self.held.items():
            series[name], series[f"{name}_covered"] = [], []
            for index, (image, known) in enumerate(images):
                wanted = known[known[:, 14] >= SURE]
                wanted = wanted[_sizes(wanted) >= SMALLEST]
                found = find_faces(image, network)  # type: ignore[arg-type]
                _compare(wanted, found, series[name], series["landmarks"])
                if name == "photographs":
                    series["extra"].append(float(sum(_best(_row(face), known) < 0.3 for face in found)))
                if len(wanted):
                    rng = np.random.default_rng((1, index))
                    hidden = image
                    for row in wanted:  # each has a filling of its own
                        hidden, _ = cover(hidden, row[None], rng, (COVERED, COVERED))
                    again = find_faces(hidden, network)  # type: ignore[arg-type]
                    _compare(wanted, again, series[f"{name}_covered"], series["landmarks_covered"])
        series["landscapes"], series["landscapes_enlarged"] = [], []
        for index in range(len(self.landscapes)):
            small = Image.fromarray(self.landscapes[index])
            large = small.resize((ENLARGED * small.width, ENLARGED * small.height), Image.Resampling.BICUBIC)
            series["landscapes"].append(float(len(find_faces(np.asarray(small), network))))  # type: ignore[arg-type]
            series["landscapes_enlarged"].append(float(len(find_faces(np.asarray(large), network))))  # type: ignore[arg-type]
        series["milliseconds"] = _milliseconds(network, self.held["photographs"][0][0])
        rows = {name: bootstrap(np.array(values)) for name, values in series.items() if values}
        return {
            "rows": {name: (found.value, found.low, found.high) for name, found in rows.items()},
            "counts": {name: len(values) for name, values in series.items()},
        }

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        lines = [f"faces of {SMALLEST:g} pixels and up, teacher's score {SURE} and up; mean, 95 %, how many"]
        lines += [
            f"{name:20} {mean:8.3f} ({low:.3f}..{high:.3f}) {scores['counts'][name]:6}"
            for name, (mean, low, high) in scores["rows"].items()
        ]
        return "\n".join(lines)

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Held-out scenes and photographs with holes: the teacher's faces in red, the student's in green."""
        pictures = []
        for images in self.held.values():
            chosen = [(image, known) for image, known in images if (known[:, 14] >= SURE).any()][:8]
            for index, (image, known) in enumerate(chosen):
                wanted = known[known[:, 14] >= SURE]
                hidden, _ = cover(image, wanted, np.random.default_rng((1, index)), (COVERED, COVERED))
                pictures.append(_drawn(hidden, wanted, find_faces(hidden, network)))  # type: ignore[arg-type]
        while len(pictures) % 4 or not pictures:
            pictures.append(np.zeros((SHEET_SIDE, SHEET_SIDE, 3), np.uint8))
        return np.vstack([np.hstack(pictures[start : start + 4]) for start in range(0, len(pictures), 4)])

    @property
    def _folder(self) -> Path:
        return data.data_folder(self.config.data)

    def _labels(self, *images: data.Images) -> Labels:
        pretrained = self.config.pretrained
        folder = Path(pretrained).expanduser() if pretrained else self._folder.resolve().parent / "pretrained"
        file = Path(self.config.labels).expanduser() if self.config.labels else None
        return read_labels(folder / TEACHER, images, file)

    def _scenes(self, side: data.Side) -> Scenes:
        if not self.config.sets:
            raise InputError("no sets of backgrounds: name some with `--set sets={scenes96=1}`")
        labels: Labels = {}

        def read(name: str) -> data.Images:
            images = data.read_set(self._folder, name, side, purpose="upscale")
            labels.update(self._labels(images))
            shortest = SHORTEST.get(name)
            if shortest is None:
                return images
            return data.read_set(self._folder, name, side, purpose="upscale", shortest=shortest)

        grounds = {name: read(name) for name in self.config.sets}
        return Scenes(grounds, self.config.sets, data.concatenate(*(read(name) for name in ALIGNED)), labels)


# --- targets and losses -----------------------------------------------------------------------------------------------


def targets(scene: Scene, side: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Say what is asked of each cell.

    Returns
    -------
    asked : ndarray of int8, (h, w)
        1 where a face is to be found, 0 where none is, -1 where both are right.
    truth : ndarray of float32, (14, h, w)
        Its box and landmarks in pixels, 0 where none is to be found.
    """
    count = -(-side // STRIDE)
    place = np.arange(count) * STRIDE + 0.5
    asked = np.zeros((count, count), np.int8)
    truth = np.zeros((14, count, count), np.float32)
    faces = sorted(scene.faces, key=lambda face: -_sizes(face[None])[0])  # the smaller one wins
    sizes = [_sizes(face[None])[0] for face in faces]
    distances = [_distances(face, place) for face in [*faces, *scene.unsure]]
    for index, distance in enumerate(distances):
        if index >= len(faces) or sizes[index] <= ALLOWED:
            asked[distance < MIDDLE] = -1
    for face, size, distance in zip(faces, sizes, distances, strict=False):
        if ASKED[0] <= size <= ASKED[1]:
            yes = distance <= max(NEAR, distance.min())
            asked[yes] = 1
            truth[:, yes] = face[:, None]
    return asked, truth


def _distances(face: NDArray, place: NDArray) -> NDArray:
    """From the middle of a box to all cells, in its sides."""
    centre, sides = (face[:2] + face[2:4]) / 2, np.maximum(face[2:4] - face[:2], 1)
    x, y = ((place - centre[i]) / sides[i] for i in range(2))
    return np.hypot(x[None, :], y[:, None])


def focal(logits: Tensor, asked: Tensor) -> Tensor:
    """Focal loss, summed over the cells that are asked.

    Parameters
    ----------
    logits : Tensor, (N, h, w)
    asked : Tensor, (N, h, w)
        1 yes, 0 no, -1 not asked.

    Examples
    --------
    >>> round(float(focal(torch.tensor([[[0.0, 9.0, 3.0]]]), torch.tensor([[[1, 1, -1]]]))), 4)
    0.104
    """
    yes = nn.functional.logsigmoid(logits)
    no = nn.functional.logsigmoid(-logits)
    losses = -BALANCE * no.exp() ** FOCUS * yes * (asked == 1) - (1 - BALANCE) * yes.exp() ** FOCUS * no * (asked == 0)
    return losses.sum()


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, less the share of the common hull that is in neither: -1..1.

    Parameters
    ----------
    a, b : Tensor, (n, 4)
        Left, top, right, bottom.

    Examples
    --------
    >>> round(float(generalised_iou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))), 3)
    0.333
    """
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1).clamp(min=1e-6)
    union = ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - common).clamp(min=1e-6)
    return common / union - (hull - union) / hull


# --- measuring --------------------------------------------------------------------------------------------------------


def _beside(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], faces: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Erase some of the background, so that a hole is no sign of a face."""
    free = [box for box in boxes if all((box[2:] < face[:2]).any() or (box[:2] > face[2:4]).any() for face in faces)]
    return cover(image, np.stack(free), rng, (0.3, 0.9))[0] if free else image


def _wanted(rows: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Boxes and landmarks in pixels, and scores, (n, 15)."""
    kept = rows[rows[:, 14] >= UNSURE]
    return np.concatenate([places(kept, *image.shape[:2]), kept[:, 14:15]], axis=1)


def _as_images(images: list[NDArray[np.uint8]]) -> data.Images:
    """Name images by what they hold, so that labels of others are never taken for theirs."""
    names = tuple(f"scene/{hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest()}" for image in images)
    return data.Images(
        names, np.concatenate([image.ravel() for image in images]), np.array([image.shape for image in images])
    )


def _sizes(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sqrt((rows[:, 2:4] - rows[:, :2]).clip(0).prod(1))


def _row(face: Face) -> NDArray[np.float32]:
    return np.array([*face.box, *np.ravel(face.landmarks)], np.float32)


def _best(row: NDArray[np.float32], rows: NDArray[np.float32]) -> float:
    """Give the largest intersection over union of a box with others."""
    if not len(rows):
        return 0.0
    common = (np.minimum(row[2:4], rows[:, 2:4]) - np.maximum(row[:2], rows[:, :2])).clip(0).prod(1)
    return float((common / (_sizes(row[None]) ** 2 + _sizes(rows) ** 2 - common)).max())


def _compare(wanted: NDArray[np.float32], found: list[Face], hits: list[float], away: list[float]) -> None:
    """Note whether each face was found, and how far its landmarks are off."""
    rows = np.stack([_row(face) for face in found]) if found else np.zeros((0, 14), np.float32)
    for row in wanted:
        overlaps = [_best(row, other[None]) for other in rows]
        hit = bool(overlaps) and max(overlaps) >= ENOUGH
        hits.append(float(hit))
        if hit:
            apart = (rows[int(np.argmax(overlaps)), 4:] - row[4:14]).reshape(5, 2)
            away.append(float(np.hypot(*apart.T).mean() / _sizes(row[None])[0]))


def _milliseconds(network: nn.Module, image: NDArray[np.uint8], runs: int = 5) -> list[float]:
    """Time of one core that a picture of `TIMED` pixels takes, warm."""
    large = np.asarray(Image.fromarray(image).resize(TIMED))
    threads, taken = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(runs + 1):
            started = time.process_time()
            find_faces(large, network)  # type: ignore[arg-type]
            taken.append(1000 * (time.process_time() - started))
    finally:
        torch.set_num_threads(threads)
    return taken[1:]


def _drawn(image: NDArray[np.uint8], wanted: NDArray[np.float32], found: list[Face]) -> NDArray[np.uint8]:
    """Draw faces on a picture that is shrunk into a square."""
    scale = SHEET_SIDE / max(image.shape[:2])
    canvas = Image.new("RGB", (SHEET_SIDE, SHEET_SIDE))
    canvas.paste(Image.fromarray(image).resize((round(image.shape[1] * scale), round(image.shape[0] * scale))))
    pen = ImageDraw.Draw(canvas)
    for rows, color in ((wanted[:, :14], (255, 60, 60)), ([_row(face) for face in found], (60, 255, 60))):
        for row in rows:
            pen.rectangle([float(v) for v in row[:4] * scale], outline=color)
            for x, y in row[4:14].reshape(5, 2) * scale:
                pen.ellipse([float(x) - 1, float(y) - 1, float(x) + 1, float(y) + 1], fill=color)
    return np.asarray(canvas)
