"""Fill holes from Python: by mask, by box, by colour, by transparency; texture and faces.

python examples/inpaint.py            writes its pictures into velatura-example/
python examples/inpaint.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import velatura

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "velatura-example")
folder.mkdir(parents=True, exist_ok=True)

# A photograph, and white where something is to go: a box of the cat's background.
photo = data.chelsea()[:200, :300]
mask = np.zeros(photo.shape[:2], np.uint8)
mask[20:60, 20:80] = 255

# 1. Once, in one line. What the mask leaves out stays as it is, bit for bit.
filled = velatura.inpaint(photo, mask, model="texture").image
assert np.array_equal(filled[mask == 0], photo[mask == 0])
Image.fromarray(np.hstack([photo, np.where(mask[..., None] > 0, 255, photo), filled]).astype(np.uint8)).save(
    folder / "inpainted.png"
)

# 2. Many times: the same hole, said in three other ways.
task = velatura.Inpaint.from_pretrained("texture")
by_box = task(photo, box=(20, 20, 60, 40)).image
by_alpha = task(np.dstack([photo, 255 - mask])).image
painted = np.where(mask[..., None] > 0, np.uint8([255, 0, 255]), photo)
by_color = task(painted, mask_color="#ff00ff").image
print("the same by box and by transparency:", np.array_equal(by_box, filled), np.array_equal(by_alpha[..., :3], filled))

# 3. Another seed, another fill; the same seed, the same bytes.
for seed in (1, 2):
    task(photo, mask, seed=seed).save(folder / f"inpainted-{seed}.png", overwrite=True)

# 4. Half of a face is hidden: three likely fills, and where they differ. (A version without weights fills by texture.)
portrait = data.astronaut()[:256, 96:352]
box = (130, 70, 60, 90)
result = velatura.inpaint(portrait, box=box, candidates=3, disagreement=True)
print("made by:", result.made_by or "texture")
others = [result.maps[name].pixels for name in ("candidate-2", "candidate-3")]
spread = np.repeat(result.maps["disagreement"].pixels, 3, axis=2)
Image.fromarray(np.hstack([portrait, result.image, *others, spread])).save(folder / "inpainted-face.png")

# 5. Every error is one line that says what was got, what was expected and the next step.
try:
    task(photo, mask[:100])
except velatura.InputError as error:
    print(f"refused: {error}")
