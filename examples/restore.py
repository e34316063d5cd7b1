"""Restore from Python: an old scan, its damage found, corrected by hand and given back, fading undone.

python examples/restore.py            writes its pictures into velatura-example/
python examples/restore.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.data import astronaut

import velatura
from velatura.ops.damage import old_scan
from velatura.task import SaveOptions

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "velatura-example")
folder.mkdir(parents=True, exist_ok=True)

# A photograph, worn as old ones are: faded, scratched, scanned with noise. Here the truth is known.
photo = np.ascontiguousarray(astronaut()[:256, 96:352])
worn = old_scan(photo.astype(np.float32) / 255, np.random.default_rng(12))
scan = np.rint(255 * worn.image).astype(np.uint8)
Image.fromarray(scan).save(folder / "scan.png")

# 1. Once, in one line. The kind that comes in comes out, in the same size.
restored = velatura.restore(scan).image
print(f"restored: {type(restored).__name__}, {restored.shape}, {restored.dtype}")
Image.fromarray(restored).save(folder / "restored.png")

# 2. Many times: the task keeps its networks. What is damaged is found at the scan's own size; look at it.
task = velatura.Restore.from_pretrained()
result = task(scan, mask_out=True, compare=True)
marks = result.maps["mask_out"].pixels[..., 0]
print(f"damaged: {(marks > 0).mean():.1%} of the pixels")
Image.fromarray(result.maps["compare"].pixels).save(folder / "before-and-after.png")

# 3. Correct the marks, and give them back. What is not marked is denoised, never filled.
marks[:64] = 0
Image.fromarray(marks).save(folder / "marks.png")
task(scan, marks).save(folder / "by-hand.png", overwrite=True)

# 4. Less of it, or only a part of it. 0 is the scan, bit for bit.
assert np.array_equal(task(scan, strength=0).image, scan)
half = task(scan, strength=0.5, fading=False, faces=False).image
plain = task(scan, "off", fading=False).image
print(f"changed by {np.abs(half.astype(float) - scan).mean():.1f} and {np.abs(plain.astype(float) - scan).mean():.1f}")

# 5. From file to file, in tiles: large scans, 16 bits, profiles and metadata kept, whole or not at all.
task.to_file(folder / "scan.png", folder / "marks.png", out=folder / "restored.tif", save=SaveOptions(overwrite=True))

# 6. Every error is one line that says what was got, what was expected and the next step.
try:
    task(scan, np.zeros((9, 9), np.uint8))
except velatura.InputError as error:
    print(f"refused: {error}")
