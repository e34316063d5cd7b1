"""Pictures with sentences that say what is on them: our two sets, and a user's folder in the papers' layouts.

Of ``flowers80`` the photographs' petal colours come with the set; the sentences are ours: petals' colours, the colour
of the centre where it is plain (``flower_centres.toml``, measured), and words for the kind (``flower_classes.toml``),
in many forms. Of ``emoji64`` they are the emoji's name and keywords.

Sentences of people, for a user's folder::

    text_c10/CLASS/NAME.txt              ten lines a picture: CUB and Oxford flowers, as Reed et al. 2016 offer them
    trainvalclasses.txt, testclasses.txt which classes are trained on; without them every fifth is held out
    ANYWHERE/NAME.jpg                    the pictures, by name
    annotations/captions_*.json          COCO: no classes, so every picture is its own
"""

from __future__ import annotations

import io
import json
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from velatura.errors import InputError
from velatura.nets.text_encoder import words_of
from velatura.ops.color_names import centre_color
from velatura.training import data
from velatura.training.pictures import to_tensor

__all__ = [
    "PETAL_COLORS",
    "Captioned",
    "flower_sentences",
    "measure_centres",
    "read_captioned",
    "read_emoji",
    "read_flowers",
    "recolored",
]

Side = Literal["train", "seen", "unseen"]

PETAL_COLORS = ("white", "pink", "yellow", "red", "orange", "purple", "blue")
SENTENCES = 20  # of every photograph of flowers80
HELD_OUT_EVERY = 5  # of a user's classes without files that name them
FLOWER, LARGEST = 80, 80  # pixels of a side: of flowers80, and of a user's pictures in memory
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Captioned:
    """Square pictures in memory, and what is said of them.

    Attributes
    ----------
    names : tuple of str
    images : ndarray of uint8, (n, side, side, 3)
    captions : tuple of tuple of str
        Sentences of each picture.
    kinds : ndarray of int64, (n,)
        The class of each.
    descriptions : ndarray of int64, (n,)
        Pictures with the same number are described alike: of one class, and of the same colours where those are known.
    colors : tuple of tuple of str
        Petals' colours of each, the commoner first; empty where they are not known.
    """

    names: tuple[str, ...]
    images: NDArray[np.uint8]
    captions: tuple[tuple[str, ...], ...]
    kinds: NDArray[np.int64]
    descriptions: NDArray[np.int64]
    colors: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    def words(self) -> list[str]:
        """All words of the sentences, sorted."""
        return sorted({word for lines in self.captions for line in lines for word in words_of(line)})

    def pictures(
        self, chosen: Sequence[int] | NDArray[np.int64], size: int, rng: np.random.Generator | None = None
    ) -> Tensor:
        """Give some of the pictures, reduced by area; with `rng` a random part of each, mirrored at random.

        Parameters
        ----------
        chosen : sequence of int
        size : int
            Side in pixels.
        rng : numpy.random.Generator, optional

        Returns
        -------
        Tensor of float32, (len(chosen), 3, size, size)
            0..1.
        """
        found = np.empty((len(chosen), size, size, 3), np.uint8)
        whole = self.images.shape[1]
        for row, index in enumerate(chosen):
            image = self.images[index]
            if rng is not None:
                side = int(rng.integers(min(size, whole), whole + 1))
                top, left = rng.integers(whole - side + 1, size=2)
                image = image[top : top + side, left : left + side]
                image = image[:, ::-1] if rng.random() < 0.5 else image
            found[row] = _resized(image, size)
        return to_tensor(found)

    def sentences(self, chosen: Sequence[int] | NDArray[np.int64], rng: np.random.Generator) -> list[str]:
        """Draw one sentence of each of some pictures."""
        return [self.captions[i][int(rng.integers(len(self.captions[i])))] for i in chosen]


def read_flowers(folder: Path, side: Side) -> Captioned:
    """Read ``flowers80``.

    Parameters
    ----------
    folder : Path
        The data folder.
    side : {"train", "seen", "unseen"}
        What is trained on; held-out photographs of the same 70 classes; all of the other 20.

    Raises
    ------
    InputError
        The set is missing or has no captions.
    """
    told = json.loads(_text(folder, "flowers80", "captions_auto.json"))
    images = data.read_set(folder, "flowers80", "both", shortest=FLOWER)
    paths = [PurePosixPath(name).relative_to("flowers80") for name in images.names]

    def wanted(path: PurePosixPath) -> bool:
        if data.held_out("flower_classes", path.parts[0]):
            return side == "unseen"
        return side == ("seen" if data.held_out("flowers80", str(path.with_suffix(""))) else "train")

    chosen = [i for i, path in enumerate(paths) if wanted(path)]
    if not chosen:
        raise InputError(f"flowers80 in {folder} has no photographs for side {side!r}; get the whole set")
    centres, kinds = _centres(), sorted(_classes())
    colors = tuple(tuple(told[str(paths[i])]["colors"]) for i in chosen)
    captions = []
    for i, petals in zip(chosen, colors, strict=True):
        key = str(paths[i].with_suffix(""))
        kind = _classes()[paths[i].parts[0]]
        # Decided by the name, so that the sentences do not depend on which photographs are read.
        rng = np.random.default_rng(list(key.encode()))
        captions.append(flower_sentences(petals, centres.get(key), kind, rng))
    numbers = np.array([kinds.index(paths[i].parts[0]) for i in chosen])
    # Of two colours the order is chance.
    alike = [(int(number), *sorted(petals)) for number, petals in zip(numbers, colors, strict=True)]
    return Captioned(
        tuple(str(paths[i]) for i in chosen),
        _squares([images[i] for i in chosen], FLOWER),
        tuple(captions),
        numbers,
        _numbered(alike),
        colors,
    )


def flower_sentences(
    colors: Sequence[str], centre: str | None, kind: dict[str, Any], rng: np.random.Generator, count: int = SENTENCES
) -> tuple[str, ...]:
    """Say what a photograph of a flower shows, in several ways.

    Parameters
    ----------
    colors : sequence of str
        Of the petals; may be empty.
    centre : str or None
        Its colour.
    kind : dict
        ``name``, ``petals`` and ``flower`` of the kind: see ``flower_classes.toml``.
    rng : numpy.random.Generator
    count : int

    Examples
    --------
    >>> kind = {"name": "sunflower", "petals": ["pointed"], "flower": "daisy-like"}
    >>> for line in flower_sentences(["yellow"], "brown", kind, np.random.default_rng(4), 3): print(line)
    a yellow sunflower, its middle is brown
    a yellow daisy-like flower with a brown centre
    a flower with yellow pointed petals around a brown middle
    """
    return tuple(_sentence(colors, centre, kind, rng) for _ in range(count))


def _sentence(colors: Sequence[str], centre: str | None, kind: dict[str, Any], rng: np.random.Generator) -> str:
    def one(*choices: str) -> str:
        return choices[int(rng.integers(len(choices)))]

    # The second colour is sometimes not worth a word; the first always is.
    said = colors if len(colors) < 2 or rng.random() < 0.75 else colors[:1]
    color = " and ".join(said)
    shape = one(*kind["petals"])
    noun = one("flower", "flower", kind["name"], f"{kind['flower']} flower")
    petals = f"{shape} petals" if rng.random() < 0.5 else "petals"
    middle = one("centre", "center", "middle")
    where = one("", "", "", " on green leaves" if noun == "flower" else "", " in a photograph")
    article = "an" if (color or noun)[0] in "aeiou" else "a"
    thing = f"{article} {color} {noun}" if color else f"{article} {noun}"
    of_color = f"{color} {petals}" if color else petals
    forms = [
        f"{thing}{where}",
        f"{thing} with {petals}",
        f"this is {thing}",
        f"a photograph of {thing}",
        f"this flower has {of_color}",
        f"{'an' if noun[0] in 'aeiou' else 'a'} {noun} with {of_color}",
        f"the {noun} has {petals} that are {color}" if color else f"the {noun} has {petals}",
        f"the petals of this {noun} are {color or shape}",
    ]
    if centre:
        inner = f"{'an' if centre[0] in 'aeiou' else 'a'} {centre} {middle}"
        forms = [
            *forms[:3],
            f"{thing} with {inner}",
            f"this is {thing} with {inner}",
            f"this flower has {of_color} and {inner}",
            f"a flower with {of_color} around {inner}",
            f"{thing}, its {middle} is {centre}",
        ]
    return one(*forms)


def recolored(text: str, rng: np.random.Generator) -> str | None:
    """Say the same of a flower of another colour; None where no colour is named.

    Examples
    --------
    >>> recolored("a red flower with a yellow centre", np.random.default_rng(1))
    'an orange flower with a yellow centre'
    """
    words = text.split(" ")
    named = {word.strip(",.") for word in words} & set(PETAL_COLORS)
    if not named:
        return None
    first = next(word.strip(",.") for word in words if word.strip(",.") in named)
    others = [color for color in PETAL_COLORS if color not in named]
    other = others[int(rng.integers(len(others)))]
    fitted = " ".join(word.replace(first, other) if word.strip(",.") == first else word for word in words)
    # "a orange" and "an red" would give it away.
    return fitted.replace(f"an {other}", f"a {other}") if other != "orange" else fitted.replace("a orange", "an orange")


def read_emoji(folder: Path, side: Side) -> Captioned:
    """Read ``emoji64``: pictures on white, each its own class. "seen" is what "train" is, "unseen" what is held out."""
    told = json.loads(_text(folder, "emoji64", "captions.json"))
    images = data.read_set(folder, "emoji64", "held-out" if side == "unseen" else "train", mode="RGBA")
    names = tuple(str(PurePosixPath(name).relative_to("emoji64")) for name in images.names)
    pictures = []
    for i in range(len(images)):
        image = images[i].astype(np.float32)
        alpha = image[..., 3:] / 255
        pictures.append(np.rint(image[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))
    captions = tuple(_emoji_sentences(told[name]) for name in names)
    numbers = np.arange(len(names))
    return Captioned(names, np.stack(pictures), captions, numbers, numbers, ((),) * len(names))


def _emoji_sentences(told: dict[str, Any]) -> tuple[str, ...]:
    name, keywords = told["name"], told["keywords"]
    joined = [" ".join(keywords[i : i + 2]) for i in range(0, len(keywords), 2)]
    return (name, f"an emoji of {name}", name, *keywords, *(f"{name} {word}" for word in keywords), *joined)


def read_captioned(folder: Path, side: Side) -> Captioned:
    """Read a user's folder in the layout of CUB, Oxford flowers or COCO; see the module.

    Of its held-out classes, "seen" and "unseen" are the same; of COCO every twentieth picture is held out.

    Raises
    ------
    InputError
        There are no captions, or no pictures for them.
    """
    notes = sorted((folder / "annotations").glob("captions_*.json"))
    lines = _coco(notes) if notes else _per_class(folder)
    if not lines:
        raise InputError(f"{folder} has neither text_c10/CLASS/NAME.txt nor annotations/captions_*.json")
    found = {path.stem: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in ENDINGS}
    kinds = sorted({kind for kind, _, _ in lines})
    held = _held_kinds(folder, kinds, 20 if notes else HELD_OUT_EVERY)
    chosen = [one for one in lines if one[1] in found and (one[0] in held) == (side != "train")]
    if not chosen:
        raise InputError(f"{folder} has no pictures with captions for side {side!r}")
    numbers = np.array([kinds.index(kind) for kind, _, _ in chosen])
    return Captioned(
        tuple(name for _, name, _ in chosen),
        _squares((_decoded(found[name]) for _, name, _ in chosen), LARGEST),
        tuple(tuple(said) for _, _, said in chosen),
        numbers,
        numbers,
        ((),) * len(chosen),
    )


def measure_centres(folder: Path) -> dict[str, list[str]]:
    """Measure what ``flower_centres.toml`` holds: the colour of a centre -> photographs without their endings."""
    told = json.loads(_text(folder, "flowers80", "captions_auto.json"))
    images = data.read_set(folder, "flowers80", "both")
    found: dict[str, list[str]] = {}
    for i, name in enumerate(images.names):
        path = PurePosixPath(name).relative_to("flowers80")
        color = centre_color(images[i], told[str(path)]["colors"])
        if color and color != "grey":
            found.setdefault("dark" if color == "black" else color, []).append(str(path.with_suffix("")))
    return found


def _per_class(folder: Path) -> list[tuple[str, str, list[str]]]:
    found = []
    for path in sorted((folder / "text_c10").glob("*/*.txt")):
        said = [line.strip() for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]
        if said:
            found.append((path.parent.name, path.stem, said))
    return found


def _coco(files: Iterable[Path]) -> list[tuple[str, str, list[str]]]:
    said: dict[str, list[str]] = {}
    for file in files:
        try:
            told = json.loads(file.read_text("utf-8"))
            names = {image["id"]: Path(image["file_name"]).stem for image in told["images"]}
            for note in told["annotations"]:
                said.setdefault(names[note["image_id"]], []).append(note["caption"].strip())
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file} is no file of COCO's captions: {error!r}") from None
    return [(name, name, lines) for name, lines in sorted(said.items())]


def _held_kinds(folder: Path, kinds: Sequence[str], every: int) -> set[str]:
    file = folder / "testclasses.txt"
    if file.is_file():
        return {line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()}
    return set(kinds[every - 1 :: every]) or {kinds[-1]}


@cache
def _classes() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("flower_classes.toml").read_text("utf-8"))


@cache
def _centres() -> dict[str, str]:
    table = tomllib.loads(Path(__file__).with_name("flower_centres.toml").read_text("utf-8"))
    return {name: color for color, names in table.items() for name in names}


def _numbered(keys: Sequence[tuple]) -> NDArray[np.int64]:
    known = {key: i for i, key in enumerate(sorted(set(keys)))}
    return np.array([known[key] for key in keys], dtype=np.int64)


def _text(folder: Path, name: str, path: str) -> str:
    archive, plain = folder / f"{name}.zip", folder / name / path
    try:
        if archive.is_file():
            with zipfile.ZipFile(archive) as opened:
                return opened.read(path).decode("utf-8")
        return plain.read_text("utf-8")
    except (OSError, KeyError, zipfile.BadZipFile):
        raise InputError(f"{name} in {folder} has no {path}, which its sentences are made from") from None


def _decoded(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as opened:
            image = opened.convert("RGB")
            image.thumbnail((2 * LARGEST, 2 * LARGEST))
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path} cannot be decoded: {error}") from None


def _squares(images: Iterable[NDArray[np.uint8]], side: int) -> NDArray[np.uint8]:
    """Cut the middle out of each, and bring it to one size."""
    found = []
    for image in images:
        height, width = image.shape[:2]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        found.append(_resized(image[top : top + short, left : left + short], side))
    return np.stack(found)


def _resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if len(image) == size:
        return image
    way = Image.Resampling.BOX if len(image) > size else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((size, size), way))
