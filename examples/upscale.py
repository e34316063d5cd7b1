"""Upscale from Python: arrays and files, any size, what the photograph says and what is supposed.

python examples/upscale.py            writes its pictures into velatura-example/
python examples/upscale.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import velatura
from velatura import samples
from velatura.ops.resize import resize
from velatura.task import SaveOptions

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "velatura-example")
folder.mkdir(parents=True, exist_ok=True)

# A photograph of the demo, shrunk to a quarter: a face of 80 x 80 pixels, a NumPy array, uint8.
photo = samples.face().small

# 1. Once, in one line: four times larger by the faithful network. The kind that comes in comes out.
enlarged = velatura.upscale(photo).image
print(f"enlarged: {type(enlarged).__name__}, {enlarged.shape}, {enlarged.dtype}")

# 2. Many times: the task keeps its network. Any scale from 1 to 8, or a size; one side is enough.
task = velatura.Upscale.from_pretrained()
task(photo, scale=2.5).save(folder / "2.5-times.png", overwrite=True)
task(Image.fromarray(photo), size=(200, None)).image.save(folder / "wide.tif")

# 3. Consistent: whatever the network supposed, shrinking gives the photograph back.
result = task(photo, consistent=True, evidence=True)
result.save(folder / "consistent.png", overwrite=True)
again = resize(result.image, *photo.shape[:2], "bicubic")
print(f"shrunk again: {np.abs(again - photo).max():.2f} grey levels off at most")
assert np.abs(np.rint(again) - photo).max() <= 1

# 4. Evidence: where detail is shown that the photograph does not determine. Bright is supposed, dark is known.
evidence = result.maps["evidence"].pixels
Image.fromarray(evidence[..., 0]).save(folder / "evidence.png")
print(f"evidence: {100 * (evidence > 127).mean():.0f} % of the picture is more supposed than known")


# 5. From file to file, row by row: pictures larger than memory, profiles and metadata kept, whole or not at all.
def progress(done: int, total: int, stage: str) -> None:
    """Say how far it is; raising `velatura.Cancelled` here would stop the work and leave no file."""
    print(f"{stage}: {done} of {total} rows")


Image.fromarray(photo).save(folder / "small.png")
written = task.to_file(
    folder / "small.png", out=folder / "large.tif", save=SaveOptions(overwrite=True), progress=progress
)
assert np.array_equal(np.asarray(Image.open(written)), enlarged)

# 6. Every error is one line that says what was got, what was expected and the next step.
try:
    task(photo, scale=9)
except velatura.InputError as error:
    print(f"refused: {error}")
