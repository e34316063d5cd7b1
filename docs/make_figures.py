"""Draw the pictures of the docs from the scenes of the demo: part of ``make docs``.

docs/images/banner.jpg           two scenes, pasted and blended, for the readme
docs/images/blend-methods.jpg    all scenes by each method
docs/images/blend-seams.jpg      the seam in close-up
docs/images/upscale-models.jpg   shrunk photographs, enlarged by the models for clean ones
docs/images/upscale-worn.jpg     the same, worn first, enlarged by the models
docs/images/upscale-evidence.jpg a result and the map of what of it is supposed
docs/images/inpaint-texture.jpg  holes filled with the image's own patches
docs/images/inpaint-faces.jpg    holes on a face, filled by models of faces
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from velatura import Blend, Upscale, inpaint
from velatura.catalog import cards
from velatura.cli.demo import contact_sheet
from velatura.ops.degrade import second_order
from velatura.samples import SCENES, SHRUNK, face

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


def main() -> None:
    """Draw all pictures."""
    IMAGES.mkdir(exist_ok=True)
    made = blended()
    for name, views, width in (("blend-methods.jpg", VIEWS, 300), ("blend-seams.jpg", SEAMS, 300)):
        rows = [{method: cut(made[scene][method], view) for method in METHODS} for scene, view in views.items()]
        save(contact_sheet(rows, width=width, text=15), name)
    shown = {
        "a cat, pasted": cut(made["cat"]["paste"], VIEWS["cat"]),
        "blended (gp-gan)": cut(made["cat"]["gp-gan"], VIEWS["cat"]),
        "galaxies, pasted": cut(made["galaxies"]["paste"], VIEWS["galaxies"]),
        "blended (poisson)": cut(made["galaxies"]["poisson"], VIEWS["galaxies"]),
    }
    save(contact_sheet([shown], width=380, text=16), "banner.jpg")
    save(enlarged(CLEAN), "upscale-models.jpg")
    save(enlarged(WORN, worn=True), "upscale-worn.jpg")
    save(evidence(), "upscale-evidence.jpg")
    save(filled(), "inpaint-texture.jpg")
    save(filled_faces(), "inpaint-faces.jpg")


if __name__ == "__main__":
    main()
