"""Draw the pictures of the docs from the scenes of the demo: part of ``make docs``.

docs/images/banner.jpg           two scenes, pasted and blended, for the readme
docs/images/blend-methods.jpg    all scenes by each method
docs/images/blend-seams.jpg      the seam in close-up
docs/images/upscale-models.jpg   shrunk photographs, enlarged by the models for clean ones
docs/images/upscale-worn.jpg     the same, worn first, enlarged by the models
docs/images/upscale-evidence.jpg a result and the map of what of it is supposed
docs/images/inpaint-texture.jpg  holes filled with the image's own patches
docs/images/inpaint-faces.jpg    holes on a face, filled by models of faces
docs/images/restore.jpg          photographs worn by the code, what was found on them, restored
docs/images/restore-faces.jpg    a face out of focus, restored without and with the refiner of faces
docs/images/stylize-sheet.jpg    photographs across, styles down, in one pass
docs/images/stylize-beside.jpg   one pass beside optimisation
docs/images/generate.jpg         draws of every model, of four classes
docs/images/imagine.jpg          six sentences, draws of each
docs/images/imagine-emoji.jpg    names of emoji, draws of each
docs/images/imagine-between.jpg  from one sentence to another; sentences of what nobody has seen
docs/images/imagine-styles.jpg   sentences in the styles of pictures

``python docs/make_figures.py restore stylize`` draws those alone whose names begin so.
"""

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from velatura import Blend, Generate, Imagine, Restore, Stylize, Upscale, inpaint
from velatura.catalog import cards
from velatura.cli.demo import contact_sheet
from velatura.image import Picture
from velatura.ops.damage import FAMILIES, OLD, old_scan
from velatura.ops.degrade import second_order
from velatura.samples import SCENES, SHRUNK, face
from velatura.training.recipes.old_scans import eight_bit

IMAGES = Path(__file__).parent / "images"
METHODS = ("paste", "poisson", "gaussian-poisson", "gp-gan")
LARGEST = 150_000  # bytes of one picture: they live in the repository

# Left, top and width of what is shown, in pixels of the destination; 3:2.
VIEWS = {"galaxies": (80, 0, 480), "cat": (0, 10, 600), "launch": (0, 0, 524), "light": (20, 0, 470)}
SEAMS = {"galaxies": (230, 50, 150), "cat": (130, 250, 150), "launch": (40, 180, 210), "light": (30, 90, 180)}

# Top and left of what is shown of an enlarged photograph, pixels.
DETAILS = {"face": (70, 130), "cup": (70, 40), "fur": (60, 40)}
DETAIL = 128  # px
CLEAN = ("bicubic", "srcnn", "srresnet", "srgan", "esrgan")
WORN = ("bicubic", "srresnet", "esrgan", "esrgan-photo")


def blended() -> dict[str, dict[str, np.ndarray]]:
    """Blend every scene by every method."""
    task = Blend.from_pretrained()
    made = {}
    for name, make in SCENES.items():
        scene = make()
        made[name] = {
            method: task(
                scene.source, scene.destination, scene.mask, at=scene.at, scale=scene.scale, method=method
            ).image
            for method in METHODS
        }
    return made


def cut(picture: np.ndarray, view: tuple[int, int, int]) -> np.ndarray:
    """Cut out a 3:2 view."""
    left, top, width = view
    return picture[top : top + width * 2 // 3, left : left + width]


def filled() -> Image.Image:
    """Rows of the hole, ours, and OpenCV's Telea."""
    import cv2
    from skimage import data

    brick = np.repeat(data.brick()[:300, :450, None], 3, 2)
    scenes = [(brick, (120, 90, 90, 90)), (data.chelsea(), (20, 20, 110, 70)), (data.rocket(), (330, 180, 70, 90))]
    rows = []
    for photo, (x, y, width, height) in scenes:
        mask = np.zeros(photo.shape[:2], np.uint8)
        mask[y : y + height, x : x + width] = 255
        shown = np.where(mask[..., None] > 0, np.uint8(255), photo)
        cells = [shown, inpaint(photo, mask, model="texture").image, cv2.inpaint(photo, mask, 5, cv2.INPAINT_TELEA)]
        rows.append(np.hstack([np.asarray(Image.fromarray(cell).resize((360, 240))) for cell in cells]))
    return Image.fromarray(np.vstack(rows))


def filled_faces() -> Image.Image:
    """Rows of the hole, our models of faces, and OpenCV's Telea, on a face in a photograph."""
    import cv2
    from skimage import data

    photo, rows = data.astronaut(), []
    left, top, side = 130, 10, 192  # of what is shown, pixels
    models = [card.name for card in cards() if card.name in {"vae-faces", "dcgan-faces"}]
    for x, y, width, height in ((200, 124, 50, 34), (180, 88, 92, 34), (176, 60, 48, 110)):
        mask = np.zeros(photo.shape[:2], np.uint8)
        mask[y : y + height, x : x + width] = 255
        cells = {"hole": np.where(mask[..., None] > 0, np.uint8(255), photo)}
        cells |= {model: inpaint(photo, mask, model=model).image for model in models}
        cells["Telea"] = cv2.inpaint(photo, mask, 5, cv2.INPAINT_TELEA)
        rows.append({what: one[top : top + side, left : left + side] for what, one in cells.items()})
    return contact_sheet(rows, width=250, text=15)


def enlarged(models: tuple[str, ...], *, worn: bool = False) -> Image.Image:
    """Details of shrunk photographs, worn or not, by several models beside the originals."""
    shipped = {card.name for card in cards()}
    tasks = {name: Upscale(name) for name in models if name == "bicubic" or name in shipped}
    rows = []
    for seed, (name, make) in enumerate(SHRUNK.items()):
        photograph, (top, left) = make(), DETAILS[name]
        small = photograph.small
        if worn:
            worse = second_order(
                photograph.original.astype(np.float32) / 255, np.random.default_rng((7, seed)), *small.shape[:2]
            )
            small = np.rint(255 * worse.clip(0, 1)).astype(np.uint8)
        made = {model: task(small).image for model, task in tasks.items()}
        whole = {"given": small.repeat(4, 0).repeat(4, 1), **made, "original": photograph.original}
        shown = {what: one[top : top + DETAIL, left : left + DETAIL] for what, one in whole.items()}
        rows.append({what: one.repeat(2, 0).repeat(2, 1) for what, one in shown.items()})
    return contact_sheet(rows, width=2 * DETAIL, text=15)


def evidence() -> Image.Image:
    """A face by the usual model (bicubic, until there is one), and what of it is supposed."""
    known = any(card.name == Upscale.default_model for card in cards())
    result = Upscale(Upscale.default_model if known else "bicubic")(face().small, evidence=True)
    return contact_sheet([{"enlarged": result.image, "evidence": result.maps["evidence"].pixels[..., 0]}], width=360)


def photographs() -> dict[str, np.ndarray]:
    """Squares of 256 pixels, out of the photographs that scikit-image brings along."""
    from skimage import data

    places = {
        "astronaut": (data.astronaut(), 0, 90, 256),
        "cat": (data.chelsea(), 0, 60, 300),
        "coffee": (data.coffee(), 0, 120, 400),
        "rocket": (data.rocket(), 0, 110, 427),
        "motorcycle": (np.asarray(data.stereo_motorcycle()[0]), 0, 120, 500),
    }
    return {
        name: np.asarray(Image.fromarray(image[top : top + side, left : left + side]).resize((256, 256)))
        for name, (image, top, left, side) in places.items()
    }


def restored() -> Image.Image:
    """Rows of a worn photograph, its damage as it was found, what came of it, and what it was."""
    task, rows = Restore.from_pretrained(), []
    families = tuple(name for name in FAMILIES if name != "mould")  # the same damage as ever
    for (name, photo), seed in zip(photographs().items(), (4, 2, 11, 5, 8), strict=True):
        worn = old_scan(photo.astype(np.float32) / 255, np.random.default_rng(seed), families=families)
        scan, original = eight_bit(worn.image), eight_bit(worn.original)
        result = task(scan, mask_out=True)
        marks = result.maps["mask_out"].pixels[..., 0]
        rows.append({f"{name}, worn": scan, "found": marks, "restored": result.image, "original": original})
    return contact_sheet(rows, width=256, text=15)


def refined_faces() -> Image.Image:
    """Rows of a face that is more and more out of focus, restored without and with the refiner of faces."""
    task, rows = Restore.from_pretrained(), []
    photo = photographs()["astronaut"].astype(np.float32) / 255
    for sigma, seed in ((1.2, 3), (2.5, 3), (4.0, 3)):
        wear = replace(OLD, grey=0, lens=1, sigma=(sigma, sigma), printed=0, faded=0, damaged=0)
        scan = eight_bit(old_scan(photo, np.random.default_rng(seed), wear).image)
        made = {
            f"blurred by {sigma:g} pixels": scan,
            "restored, --no-faces": task(scan, faces=False).image,
            "restored": task(scan).image,
            "original": eight_bit(photo),
        }
        rows.append({name: image[24:208, 36:220] for name, image in made.items()})
    return contact_sheet(rows, width=256, text=15)


def styles() -> dict[str, np.ndarray]:
    """Pictures whose looks are to be taken over, from scikit-image."""
    from skimage import data

    found = {
        "retina": data.retina()[300:1100, 300:1100],
        "tissue": data.immunohistochemistry()[:400, :400],
        "galaxies": data.hubble_deep_field()[:500, :500],
        "gravel": np.repeat(data.gravel()[:400, :400, None], 3, 2),
        "colours": np.asarray(data.colorwheel())[..., :3],
    }
    return {name: np.asarray(Image.fromarray(image).resize((256, 256))) for name, image in found.items()}


def stylized() -> Image.Image:
    """Photographs across, styles down."""
    task, across = Stylize.from_pretrained(), photographs()
    rows = [{"": np.full((256, 256, 3), 255, np.uint8), **across}]
    for name, style in styles().items():
        rows.append({name: style, **{which: task(photo, style).image for which, photo in across.items()}})
    return contact_sheet(rows, width=200, text=13)


def beside() -> Image.Image:
    """Photograph, style, one pass, and 100 steps of optimisation."""
    task, known, looks = Stylize.from_pretrained(), photographs(), styles()
    pairs = (("cat", "tissue"), ("coffee", "retina"), ("rocket", "galaxies"))
    return contact_sheet(
        [
            {
                which: known[which],
                style: looks[style],
                "one pass": task(known[which], looks[style]).image,
                "100 steps": task(known[which], looks[style], method="optimize", steps=100).image,
            }
            for which, style in pairs
        ],
        width=256,
        text=15,
    )


def imagined() -> Image.Image:
    """The first eight draws of some sentences, none of them chosen."""
    task = Imagine.from_pretrained()
    return strips({text: task(text, count=8, seed=1).pictures for text in SENTENCES})


def emoji() -> Image.Image:
    """The first eight draws of some names of emoji, the last two of which were never trained on."""
    task = Imagine.from_pretrained("emoji")
    return strips({text: task(text, count=8, seed=1).pictures for text in EMOJI})


def between() -> Image.Image:
    """Ways from one sentence to another, each of one noise; then draws of what nobody has seen."""
    task = Imagine.from_pretrained()
    ways = {f"from {a} to {b}": task(interpolate=(a, b), frames=8, seed=i).pictures for i, (a, b) in enumerate(WAYS)}
    return strips(ways | {text: task(text, count=8, seed=1).pictures for text in UNHEARD_OF})


def in_styles() -> Image.Image:
    """Made pictures that give the style, and below each what other sentences become in it."""
    task = Imagine.from_pretrained()
    text, *others = SENTENCES
    given = task(text, count=8, seed=1).pictures
    drawn = {other: [task(other, style=one.pixels).pictures[0] for one in given] for other in others}
    return strips({f"{text}: the styles": given, **drawn})


def strips(rows: Mapping[str, Sequence[Picture]]) -> Image.Image:
    """Rows of small pictures, twice their size, each row under its text."""
    joined = [{text: np.hstack([one.pixels for one in row]).repeat(2, 0).repeat(2, 1)} for text, row in rows.items()]
    return contact_sheet(joined, width=1024, text=15)


def generated() -> Image.Image:
    """The first eight draws of every model, and of four classes where there are some, none of the draws chosen."""
    rows = []
    for name in Generate.models():
        task = Generate.from_pretrained(name)
        for kind in task.classes[:: max(len(task.classes) // 4, 1)][:4] or (None,):
            drawn = np.hstack([picture.pixels for picture in task(8, seed=1, class_name=kind).pictures])
            colours = np.broadcast_to(drawn, (*drawn.shape[:2], 3))
            rows.append({f"{name}, {kind}" if kind else name: colours.repeat(2, 0).repeat(2, 1)})
    return contact_sheet(rows, width=1024, text=15)


def save(picture: Image.Image, name: str) -> None:
    """Write a JPEG in the best quality that fits."""
    encoded, quality = b"", 96
    while not encoded or len(encoded) > LARGEST:
        quality -= 4
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True)
        encoded = stream.getvalue()
    (IMAGES / name).write_bytes(encoded)
    print(f"{IMAGES / name}: {len(encoded) >> 10} KiB")


BLENDINGS = ("blend-methods.jpg", "blend-seams.jpg", "banner.jpg")  # drawn together


def blendings() -> Iterator[tuple[str, Image.Image]]:
    """The pictures of blending, and the banner."""
    made = blended()
    for name, views in zip(BLENDINGS, (VIEWS, SEAMS), strict=False):
        rows = [{method: cut(made[scene][method], view) for method in METHODS} for scene, view in views.items()]
        yield name, contact_sheet(rows, width=300, text=15)
    shown = {
        "a cat, pasted": cut(made["cat"]["paste"], VIEWS["cat"]),
        "blended (gp-gan)": cut(made["cat"]["gp-gan"], VIEWS["cat"]),
        "galaxies, pasted": cut(made["galaxies"]["paste"], VIEWS["galaxies"]),
        "blended (poisson)": cut(made["galaxies"]["poisson"], VIEWS["galaxies"]),
    }
    yield BLENDINGS[-1], contact_sheet([shown], width=380, text=16)


SENTENCES = (
    "a red flower",
    "this flower has white petals and a yellow centre",
    "a flower with round yellow petals",
    "the petals are purple",
    "a pink flower with pointed petals",
    "an orange flower",
)
WAYS = (
    ("a yellow flower", "a blue flower"),
    ("a white flower with a yellow centre", "a red flower"),
    ("a purple daisy-like flower with long petals", "an orange flower with ruffled petals"),
)
EMOJI = (
    "grinning face",
    "woman office worker",
    "green square",
    "bus stop",
    "red heart",
    "grapes",
    "blue circle",
    "fire",
)
UNHEARD_OF = ("a blue sunflower", "a green rose", "a red dandelion", "a brown lotus")
OTHERS = {
    "upscale-models.jpg": lambda: enlarged(CLEAN),
    "upscale-worn.jpg": lambda: enlarged(WORN, worn=True),
    "upscale-evidence.jpg": evidence,
    "inpaint-texture.jpg": filled,
    "inpaint-faces.jpg": filled_faces,
    "restore.jpg": restored,
    "restore-faces.jpg": refined_faces,
    "stylize-sheet.jpg": stylized,
    "stylize-beside.jpg": beside,
    "generate.jpg": generated,
    "imagine.jpg": imagined,
    "imagine-emoji.jpg": emoji,
    "imagine-between.jpg": between,
    "imagine-styles.jpg": in_styles,
}


def main(wanted: tuple[str, ...]) -> None:
    """Draw all pictures, or those whose names begin so."""
    IMAGES.mkdir(exist_ok=True)
    if not wanted or any(name.startswith(wanted) for name in BLENDINGS):
        for name, picture in blendings():
            save(picture, name)
    for name, draw in OTHERS.items():
        if not wanted or name.startswith(wanted):
            save(draw(), name)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
