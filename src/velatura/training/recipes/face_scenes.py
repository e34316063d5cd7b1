"""Scenes with faces for `velatura.training.recipes.faces`, and what the teacher says of them.

`Teacher` and `read_labels` find the faces of undamaged images. `Scenes` pastes aligned faces in all sizes, turned,
mirrored and cut by the border, onto photographs, paintings, flowers and landscapes, whose own faces are labelled, too.
`cover` erases parts of faces, `damage` bleaches, blurs and compresses; the labels stay as they were.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from velatura.errors import MachineError, ModelError
from velatura.training import data

__all__ = ["ALIGNED", "SURE", "TEACHER", "Scene", "Scenes", "Teacher", "cover", "damage", "places", "read_labels"]

TEACHER = "yunet_n_dynamic.onnx"
SURE, UNSURE = 0.7, 0.3  # the teacher's scores: a face; perhaps a face, where nothing is asked of the student
OVERLAP = 0.3  # boxes that overlap more are one face: OpenCV's default for the teacher

# How the teacher looks at the images of a set: enlarged so many times. Faces that fill their image get a margin.
LOOKS = {
    "faces128": (1.0,),
    "faces256": (1.0,),
    "scenes96": (3.0,),
    "flowers80": (3.0,),
    "styles": (1.0, 2.0),
    "old_photos": (1.0, 2.0),
    "sr_hr_patches": (1.0, 2.0),
    "sr_t91_bsds400": (1.0, 2.0),
    "scene": (1.0,),
}
ALIGNED = ("faces128", "faces256")

# One row of labels: left, top, right, bottom, x and y of five landmarks, score, how many times enlarged.
# Places are shares of the image's width and height, so that they hold at any size of it.
COLUMNS = 16
Rows = NDArray[np.float32]
Labels = dict[str, Rows]


class Teacher:
    """YuNet.

    Parameters
    ----------
    file : Path

    Raises
    ------
    ModelError
        There is no such file.
    MachineError
        OpenCV is not installed.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise ModelError(f"{file}: no such file; name the teacher's folder with `--set pretrained=DIR`")
        try:
            import cv2
        except ImportError:
            raise MachineError("the teacher needs OpenCV: pip install opencv-python-headless") from None
        cv2.setNumThreads(1)  # the same sums in the same order everywhere
        self._net = cv2.FaceDetectorYN.create(str(file), "", (320, 320), UNSURE, OVERLAP, 5000)

    def __call__(self, image: NDArray[np.uint8], enlarged: float = 1.0, margin: float = 0.0) -> Rows:
        """Find faces in one look.

        Parameters
        ----------
        image : ndarray of uint8, (H, W, 3)
        enlarged : float
            How many times larger the teacher sees it.
        margin : float
            Share of the image that is mirrored around it.

        Returns
        -------
        ndarray of float32, (n, 16)
        """
        height, width = image.shape[:2]
        rows, cols = round(margin * height), round(margin * width)
        seen = np.pad(image, ((rows, rows), (cols, cols), (0, 0)), mode="reflect")
        if enlarged != 1:
            size = (round(seen.shape[1] * enlarged), round(seen.shape[0] * enlarged))
            seen = np.asarray(Image.fromarray(seen).resize(size, Image.Resampling.BICUBIC))
        self._net.setInputSize(seen.shape[1::-1])
        found = self._net.detect(np.ascontiguousarray(seen[..., ::-1]))[1]
        if found is None:
            return np.zeros((0, COLUMNS), np.float32)
        points = found[:, :14].reshape(-1, 7, 2).astype(np.float64)
        points[:, 1] += points[:, 0]  # width and height -> lower right corner
        points = (points / enlarged - (cols, rows)) / (width, height)
        looks = np.full((len(found), 1), enlarged)
        return np.concatenate([points.reshape(-1, 14), found[:, 14:15], looks], axis=1).astype(np.float32)


def read_labels(teacher: Path, images: Iterable[data.Images], file: Path | None = None) -> Labels:
    """Get the teacher's labels, and keep them in a file.

    Parameters
    ----------
    teacher : Path
        Its file; opened only where labels are missing.
    images : iterable of Images
        Undamaged, in the size of their files.
    file : Path, optional
        Where the labels lie, an .npz; what is missing in it is added. About ten minutes of one core for all sets.

    Returns
    -------
    dict
        Name of each image -> its rows.

    Raises
    ------
    ModelError
        The teacher or the file of labels is missing or damaged.
    """
    labels = _load(file) if file is not None and file.is_file() else {}
    known, runner = len(labels), None
    for part in images:
        for index, name in enumerate(part.names):
            if name not in labels:
                runner = runner or Teacher(teacher)
                labels[name] = _look(runner, name.split("/")[0], part[index])
    if file is not None and len(labels) > known:
        file.parent.mkdir(parents=True, exist_ok=True)
        counts = np.array([len(rows) for rows in labels.values()])
        rows = np.concatenate([np.zeros((0, COLUMNS), np.float32), *labels.values()])
        with file.open("wb") as opened:
            np.savez_compressed(opened, names=np.array(list(labels)), counts=counts, rows=rows)
    return labels


def _look(teacher: Teacher, name: str, image: NDArray[np.uint8]) -> Rows:
    if name not in ALIGNED:
        return np.concatenate([teacher(image, enlarged) for enlarged in LOOKS[name]])
    found = teacher(image, margin=0.25)
    middle = np.abs((found[:, :2] + found[:, 2:4]) / 2 - 0.5).sum(1)
    # The margin mirrors parts of the face; the face itself is in the middle.
    return found[middle < 0.3][np.argsort(middle[middle < 0.3])[:1]]


def _load(file: Path) -> Labels:
    try:
        with np.load(file, allow_pickle=False) as found:
            names, counts, rows = found["names"], found["counts"], found["rows"]
        parts = np.split(rows.reshape(-1, COLUMNS), np.cumsum(counts)[:-1])
        return dict(zip(names.tolist(), parts, strict=True))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ModelError(f"{file}: no file of labels: {error}; delete it, and it is made anew") from None


def places(rows: Rows, height: int, width: int) -> Rows:
    """Give box and landmarks of labels in pixels, (n, 14)."""
    return (rows[:, :14].reshape(-1, 7, 2) * (width, height)).reshape(-1, 14).astype(np.float32)


# --- scenes -----------------------------------------------------------------------------------------------------------

GREY = (128, 128, 128)  # what convolutions see beyond the border
MIRRORED = (1, 0, 2, 4, 3)  # the landmarks of a mirrored face
SEEN, HIDDEN = 0.6, 0.25  # shares of a box inside the image: a face; nothing is asked; below, no face


@dataclass(frozen=True)
class Scene:
    """An image and its faces.

    Attributes
    ----------
    image : ndarray of uint8, (side, side, 3)
    faces : ndarray of float32, (n, 14)
        Box (left, top, right, bottom) and landmarks in pixels.
    unsure : ndarray of float32, (m, 14)
        What may or may not be called a face.
    """

    image: NDArray[np.uint8]
    faces: Rows
    unsure: Rows


@dataclass(frozen=True)
class Scenes:
    """Where scenes are made of.

    Attributes
    ----------
    grounds : dict of str to Images
        Backgrounds by set, in any size.
    shares : dict of str to float
        How many of the scenes each gives, relative to the others.
    faces : Images
        Aligned ones.
    labels : dict
        Of both.
    """

    grounds: dict[str, data.Images]
    shares: dict[str, float]
    faces: data.Images
    labels: Labels

    def draw(
        self, rng: np.random.Generator, side: int, sizes: tuple[float, float], most: int = 3, *, calm: bool = False
    ) -> Scene:
        """Make one scene.

        Parameters
        ----------
        rng : numpy.random.Generator
        side : int
            Of the scene, in pixels.
        sizes : (float, float)
            Of the faces, in pixels; a few are larger.
        most : int
            Faces that are pasted at most.
        calm : bool
            Whether the background fills the scene and all pasted faces lie on it, as people's photographs are.
        """
        image, faces, unsure = self._ground(rng, side, sizes, calm)
        faces, unsure = list(faces), list(unsure)
        for _ in range(int(rng.integers(most + 1))):
            if rng.random() < 0.15:
                self._paste_ground(image, rng, sizes)  # a soft outline alone is no face
            else:
                self._paste_face(image, faces, unsure, rng, sizes, calm)
        visible = [_visible(face, side) for face in faces]
        unsure += [face for face, share in zip(faces, visible, strict=True) if HIDDEN <= share < SEEN]
        faces = [face for face, share in zip(faces, visible, strict=True) if share >= SEEN]
        return Scene(np.asarray(image), _stack(faces), _stack(unsure))

    def _ground(
        self, rng: np.random.Generator, side: int, sizes: tuple[float, float], calm: bool
    ) -> tuple[Image.Image, Rows, Rows]:
        """Cut a background, often so that one of its faces has a size that is wanted."""
        array, rows = self._choose(rng)
        height, width = array.shape[:2]
        known = places(rows, height, width)
        sure = known[rows[:, 14] >= SURE]
        centre = rng.random(2) * (width, height)
        if len(sure) and rng.random() < 0.7:
            face = sure[rng.integers(len(sure))]
            scale = _between(rng, *sizes) / _size(face)
            centre = (face[:2] + face[2:4]) / 2 + rng.uniform(-0.4, 0.4, 2) * side / scale
        else:
            scale = _between(rng, 0.3, 1.6) * max(1.0, side / min(height, width))
        scale = float(np.clip(scale, side / min(height, width) if calm else 0.1, 4))
        # The cut may be larger than the image; then it hangs on grey.
        size = side / scale
        start = [
            rng.uniform(length - size, 0) if length < size else np.clip(middle - size / 2, 0, length - size)
            for middle, length in zip(centre, (width, height), strict=True)
        ]
        low, high = np.maximum(start, 0), np.minimum(np.add(start, size), (width, height))
        at = np.rint((low - start) * scale).astype(int)
        shape = np.maximum(np.rint((high - low) * scale).astype(int), 1)
        filters = (Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)
        part = Image.fromarray(array).resize(tuple(shape), filters[rng.integers(4)], box=(*low, *high))
        image = Image.new("RGB", (side, side), GREY if rng.random() < 0.7 else tuple(rng.integers(0, 256, 3)))
        image.paste(part, tuple(at))
        moved = ((known.reshape(-1, 7, 2) - start) * scale).reshape(-1, 14).astype(np.float32)
        if rng.random() < 0.5:
            image, moved = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), _mirrored(moved, side)
        is_sure = rows[:, 14] >= SURE
        return image, _distinct(moved[is_sure], rows[is_sure, 14]), moved[~is_sure]

    def _choose(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Rows]:
        names = list(self.grounds)
        chances = np.array([self.shares[name] for name in names], np.float64)
        images = self.grounds[names[rng.choice(len(names), p=chances / chances.sum())]]
        index = int(rng.integers(len(images)))
        return images[index], self.labels[images.names[index]]

    def _paste_face(
        self,
        image: Image.Image,
        faces: list[Rows],
        unsure: list[Rows],
        rng: np.random.Generator,
        sizes: tuple[float, float],
        calm: bool,
    ) -> None:
        """Paste a face where there is none yet."""
        index = int(rng.integers(len(self.faces)))
        rows = self.labels[self.faces.names[index]]
        if not len(rows) or rows[0, 14] < SURE:
            return
        array = self.faces[index]
        face = places(rows[:1], 1, 1)[0]
        is_large = rng.random() < 0.15 and not calm
        size = _between(rng, sizes[0], (4 if is_large else 1) * sizes[1])
        if rng.random() < 0.5:
            array, face = np.ascontiguousarray(array[:, ::-1]), _mirrored(face[None], 1)[0]
        angle = rng.normal(0, 0.2) if rng.random() < 0.85 else rng.uniform(-1, 1)
        stretch = np.exp(rng.normal(0, 0.05))
        length = size / _size(face)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = length * turn * (stretch, 1 / stretch)
        offset = rng.uniform(*((0.15, 0.85) if calm else (-0.1, 1.1)), 2) * image.width - matrix @ (0.5, 0.5)
        moved = _turned(face, matrix, offset)
        if any(_overlap(moved, other) > 0.05 for other in [*faces, *unsure]) or _visible(moved, image.width) <= 0:
            return
        cut = Image.fromarray(_tinted(array, rng))
        _paste(image, cut, _outline(rng, 48), matrix, offset)
        faces.append(moved)

    def _paste_ground(self, image: Image.Image, rng: np.random.Generator, sizes: tuple[float, float]) -> None:
        """Paste a piece without faces just as faces are pasted."""
        array, rows = self._choose(rng)
        if len(rows):
            return
        length = _between(rng, *sizes) * 1.3
        top, left = (int(rng.integers(max(n - 96, 0) + 1)) for n in array.shape[:2])
        cut = Image.fromarray(array[top : top + 96, left : left + 96]).resize((96, 96))
        matrix = np.eye(2) * length
        _paste(image, cut, _outline(rng, 48), matrix, rng.uniform(-0.1, 0.9, 2) * image.width)


def _paste(image: Image.Image, cut: Image.Image, outline: Image.Image, matrix: NDArray, offset: NDArray) -> None:
    """Paste a square, seen through its outline, where ``matrix`` and ``offset`` take the unit square."""
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ matrix.T + offset
    low = np.floor(corners.min(0)).astype(int).clip(0, image.width)
    high = np.ceil(corners.max(0)).astype(int).clip(0, image.width)
    if (high <= low).any():
        return
    length = np.sqrt(abs(np.linalg.det(matrix)))
    if (factor := int(cut.width / length)) > 1:
        cut = cut.reduce(factor)
    back = np.linalg.inv(matrix)
    size = tuple(high - low)

    def warped(part: Image.Image, way: Image.Resampling) -> Image.Image:
        inverse = back * part.width
        shift = inverse @ (low - offset)
        terms = (*inverse[0], shift[0], *inverse[1], shift[1])
        return part.transform(size, Image.Transform.AFFINE, terms, way)

    image.paste(warped(cut, Image.Resampling.BICUBIC), tuple(low), warped(outline, Image.Resampling.BILINEAR))


def _outline(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw a soft outline around the middle of an aligned face, from almost only the face to the whole square."""
    if rng.random() < 0.1:
        return Image.new("L", (side, side), 255)
    x, y = np.abs((np.arange(side) + 0.5) / side - 0.5), np.abs((np.arange(side) + 0.5) / side - 0.53)
    power, softness = rng.uniform(2, 6), rng.uniform(0.03, 0.25)
    across, down = rng.uniform(0.38, 0.62), rng.uniform(0.48, 0.7)
    distance = ((x / across)[None, :] ** power + (y / down)[:, None] ** power) ** (1 / power)
    edge = np.minimum(0.5 - x[None, :], 0.53 - y[:, None]) / 0.06
    mask = np.minimum((1 - distance) / softness + 0.5, edge).clip(0, 1)
    return Image.fromarray((255 * mask).astype(np.uint8))


def _tinted(array: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change light and colour a little."""
    gains = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.06, 3))
    table = np.arange(256)[:, None] * gains + rng.normal(0, 12)
    return np.stack([_bytes(table[:, i])[array[..., i]] for i in range(3)], axis=-1)


# --- damage -----------------------------------------------------------------------------------------------------------


def cover(
    image: NDArray[np.uint8], boxes: Rows, rng: np.random.Generator, share: tuple[float, float]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Erase a part of each box by rectangles, ellipses and strokes.

    Parameters
    ----------
    image : ndarray of uint8, (H, W, 3)
    boxes : ndarray, (n, 4 or more)
        Left, top, right, bottom.
    rng : numpy.random.Generator
    share : (float, float)
        How much of each box is covered at least, 0..1.

    Returns
    -------
    image : ndarray of uint8, (H, W, 3)
    covered : ndarray of float32, (n,)
        Share of each box (as far as it is seen) that is covered now.
    """
    drawn = Image.fromarray(image)
    mask = Image.new("L", drawn.size)
    pen = ImageDraw.Draw(mask)
    covered = np.zeros(len(boxes), np.float32)
    for index, box in enumerate(boxes):
        low = np.floor(box[:2]).astype(int).clip(0)
        high = np.minimum(np.ceil(box[2:4]).astype(int), drawn.size)
        if (high <= low).any():
            continue
        wanted = rng.uniform(*share)
        for _ in range(50):
            _shape(pen, box, rng, max(wanted - covered[index], 0.03))
            covered[index] = np.asarray(mask.crop((*low, *high))).mean() / 255
            if covered[index] >= wanted:
                break
    if rng.random() < 0.3:
        mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    return np.asarray(Image.composite(_filling(drawn, boxes, rng), drawn, mask)), covered


def _shape(pen: ImageDraw.ImageDraw, box: Rows, rng: np.random.Generator, share: float) -> None:
    """Draw a rectangle, an ellipse or a stroke of about this share of the box, anywhere on it."""
    low, size = box[:2], box[2:4] - box[:2]
    area = float(size.prod()) * share * _between(rng, 0.5, 1.3)
    middle = low + rng.random(2) * size
    if rng.random() < 0.3:
        length = np.sqrt(size.prod()) * rng.uniform(0.8, 1.6)
        angle = rng.uniform(0, 2 * np.pi)
        along = length / 2 * np.array([np.cos(angle), np.sin(angle)])
        bend = middle + rng.normal(0, 0.15, 2) * size
        points = [tuple(float(v) for v in point) for point in (middle - along, bend, middle + along)]
        pen.line(points, fill=255, width=max(2, round(area / length)), joint="curve")
        return
    ratio = _between(rng, 0.5, 2)
    half = np.sqrt(area * np.array([ratio, 1 / ratio])) / 2
    if rng.random() < 0.5:
        pen.ellipse([*(middle - half), *(middle + half)], fill=255)
        return
    angle = rng.uniform(-0.8, 0.8) if rng.random() < 0.5 else 0.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half @ turn.T + middle
    pen.polygon([tuple(float(v) for v in corner) for corner in corners], fill=255)


def _filling(image: Image.Image, boxes: Rows, rng: np.random.Generator) -> Image.Image:
    """Make what is seen in the holes: one colour, noise, a blurred or another part of the image."""
    kind = rng.random()
    if kind < 0.55:
        plain = rng.choice(256, 3) if kind < 0.2 else np.repeat(rng.choice((0, 255, 128, int(rng.integers(256)))), 3)
        return Image.new("RGB", image.size, tuple(int(v) for v in plain))
    if kind < 0.7:
        noise = rng.normal(rng.uniform(60, 200), rng.uniform(10, 80), (image.height, image.width, 3))
        return Image.fromarray(_bytes(noise))
    if kind < 0.9:
        sizes = [_size(box) for box in boxes] or [32.0]
        return image.filter(ImageFilter.BoxBlur(max(sizes) * rng.uniform(0.3, 0.7)))
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def damage(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make grey, bleach, blur, scratch, add noise, compress: each only sometimes."""
    drawn = Image.fromarray(image)
    if rng.random() < 0.35:
        drawn = drawn.convert("L").convert("RGB")
    if rng.random() < 0.35:
        drawn = _faded(drawn, rng)
    if rng.random() < 0.25:
        drawn = drawn.filter(ImageFilter.GaussianBlur(_between(rng, 0.3, 1.6)))
    if rng.random() < 0.2:
        factor = rng.uniform(1.2, 2.2)
        small = round(drawn.width / factor), round(drawn.height / factor)
        drawn = drawn.resize(small, Image.Resampling.BOX).resize(drawn.size, Image.Resampling.BICUBIC)
    if rng.random() < 0.12:
        drawn = _scratched(drawn, rng)
    if rng.random() < 0.35:
        channels = 1 if rng.random() < 0.5 else 3
        noise = rng.standard_normal((drawn.height, drawn.width, channels), np.float32)
        drawn = Image.fromarray(_bytes(np.asarray(drawn) + np.float32(_between(rng, 2, 30)) * noise))
    if rng.random() < 0.35:
        file = io.BytesIO()
        drawn.save(file, "JPEG", quality=int(rng.integers(15, 95)))
        drawn = Image.open(file).convert("RGB")
    return np.asarray(drawn)


def _faded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Bend and compress the range of each channel, as light, time and cameras do."""
    x = np.linspace(0, 1, 256)
    contrast, gamma = rng.uniform(0.4, 1.15), _between(rng, 0.6, 1.6)
    low = rng.uniform(0, max(1 - contrast, 0))
    tints = np.exp(rng.normal(0, 0.08, 3))
    table = [_bytes(255 * (low + contrast * x**gamma) * tint) for tint in tints]
    return image.point(np.concatenate(table).tolist())


def _scratched(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    image = image.copy()
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 8))):
        start, move = rng.random(2) * image.size, rng.normal(0, 0.4, 2) * image.size
        value = int(rng.choice((0, 255, int(rng.integers(256)))))
        pen.line([*start, *(start + move)], fill=(value, value, value), width=int(rng.integers(1, 4)))
    return image


# --- boxes ------------------------------------------------------------------------------------------------------------


def _turned(face: Rows, matrix: NDArray, offset: NDArray) -> Rows:
    """Take a face along; its new box is that of the turned ellipse in the old one, because heads are round."""
    points = face[4:].reshape(5, 2) @ matrix.T + offset
    centre = (face[:2] + face[2:4]) / 2 @ matrix.T + offset
    half = np.sqrt(((matrix * (face[2:4] - face[:2]) / 2) ** 2).sum(1))
    return np.concatenate([centre - half, centre + half, points.ravel()]).astype(np.float32)


def _mirrored(faces: Rows, width: float) -> Rows:
    boxes = np.stack([width - faces[:, 2], faces[:, 1], width - faces[:, 0], faces[:, 3]], axis=1)
    points = faces[:, 4:].reshape(-1, 5, 2)[:, MIRRORED] * (-1, 1) + (width, 0)
    return np.concatenate([boxes, points.reshape(-1, 10)], axis=1).astype(np.float32)


def _distinct(faces: Rows, scores: NDArray) -> Rows:
    """Drop what was found in another look, too."""
    kept: list[Rows] = []
    for face in faces[np.argsort(-scores, kind="stable")]:
        if all(_overlap(face, other) < OVERLAP for other in kept):
            kept.append(face)
    return _stack(kept)


def _size(face: Rows) -> float:
    return float(np.sqrt(max((face[2] - face[0]) * (face[3] - face[1]), 1e-9)))


def _overlap(a: Rows, b: Rows) -> float:
    """Intersection over union of two boxes."""
    common = (np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])).clip(0).prod()
    return float(common / (_size(a) ** 2 + _size(b) ** 2 - common))


def _visible(face: Rows, side: int) -> float:
    """Share of a box that lies in the image."""
    inside = (face[2:4].clip(0, side) - face[:2].clip(0, side)).prod()
    return float(inside) / _size(face) ** 2


def _stack(faces: list[Rows]) -> Rows:
    return np.stack(faces).astype(np.float32) if faces else np.zeros((0, 14), np.float32)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Give a random number, every ratio alike."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _bytes(values: NDArray) -> NDArray[np.uint8]:
    return np.rint(values).clip(0, 255).astype(np.uint8)
