"""Blend from Python: arrays, PIL images and files; placing, methods, progress.

python examples/blend.py            writes its pictures into velatura-example/
python examples/blend.py FOLDER
"""

import sys
from pathlib import Path

from PIL import Image

import velatura
from velatura import samples
from velatura.task import SaveOptions

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "velatura-example")
folder.mkdir(parents=True, exist_ok=True)

# A scene of the demo: a cat's face, a soft mask around it, and a cup of coffee. All are NumPy arrays, uint8.
scene = samples.cat()

# 1. Once, in one line. The kind that comes in comes out: here an array of the destination's size and depth.
blended = velatura.blend(scene.source, scene.destination, scene.mask, at=scene.at, scale=scene.scale).image
print(f"blended: {type(blended).__name__}, {blended.shape}, {blended.dtype}")

# 2. Many times: the task keeps its model. Options are the same as those of `velatura blend --help`.
task = velatura.Blend.from_pretrained()
for method in ("paste", "poisson", "mixed", "gaussian-poisson", "gp-gan"):
    result = task(scene.source, scene.destination, scene.mask, at=scene.at, scale=scene.scale, method=method)
    result.save(folder / f"{method}.png", overwrite=True)

# 3. PIL images, and a source whose own transparency is the mask. `at` may be negative; what lies outside is cut off.
cutout = Image.fromarray(scene.source)
cutout.putalpha(Image.fromarray(scene.mask))
corner = task(cutout, Image.fromarray(scene.destination), at=(-60, 250), scale=0.7).image
corner.save(folder / "corner.jpg")

# 4. From file to file, band by band: images larger than memory, profiles and metadata kept, whole or not at all.
for name in ("source", "destination", "mask"):
    Image.fromarray(getattr(scene, name)).save(folder / f"{name}.png")


def progress(done: int, total: int, stage: str) -> None:
    """Say how far it is; raising `velatura.Cancelled` here would stop the work and leave no file."""
    print(f"{stage}: {done} of {total} rows")


written = task.to_file(
    folder / "source.png",
    folder / "destination.png",
    folder / "mask.png",
    out=folder / "blended.tif",
    save=SaveOptions(overwrite=True),
    at=scene.at,
    scale=scene.scale,
    progress=progress,
)
print(f"written: {written}")

# 5. Every error is one line that says what was got, what was expected and the next step.
try:
    task(scene.source, scene.destination, scene.mask)
except velatura.InputError as error:
    print(f"refused: {error}")
