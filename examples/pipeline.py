"""Several applications in a row from Python: in memory, checked before the first, before beside after.

python examples/pipeline.py            writes its pictures into velatura-example/
python examples/pipeline.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import velatura
from velatura import samples
from velatura.pipeline import Step

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "velatura-example")
folder.mkdir(parents=True, exist_ok=True)

# A photograph of the demo, shrunk to a quarter: 80 x 80 pixels.
photo = samples.face().small

# 1. Fill a hole with what is around it, then enlarge. Options as on the command line, or as Python values.
pipeline = velatura.Pipeline(
    ["inpaint:box=4,60,12,12,model=texture", Step("upscale", {"scale": 2, "consistent": True})]
)
result = pipeline(photo, compare=True)
result.save(folder / "two-steps.png", overwrite=True)
print(f"made by {result.made_by}: {result.image.shape}, {result.image.dtype}")

# 2. The same as one after the other.
filled = velatura.inpaint(photo, box=(4, 60, 12, 12), model="texture").image
print(f"the same: {np.array_equal(velatura.upscale(filled, scale=2, consistent=True).image, result.image)}")

# 3. Before and after on one sheet.
Image.fromarray(result.maps["compare"].pixels).save(folder / "sheet.png")


# 4. One hook tells how far all steps together are; from file to file the last step's rows are written as they come.
def progress(done: int, total: int, stage: str) -> None:
    """Raising `velatura.Cancelled` here would stop the work and leave no file."""
    print(f"{100 * done // total} %: {stage}")


Image.fromarray(photo).save(folder / "small.png")
(folder / "large.tif").unlink(missing_ok=True)
pipeline.to_file(folder / "small.png", out=folder / "large.tif", progress=progress)

# 5. Wrong steps are refused before anything is done, and named.
try:
    velatura.Pipeline(["upscale:scale=2", "upscale:scale=9"])
except velatura.InputError as error:
    print(f"refused: {error}")
