"""Make pictures from noise in Python: a seed, a grid, from one face to another, latents, enlargement.

python examples/generate.py            writes its pictures into velatura-example/
python examples/generate.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

import velatura

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "velatura-example")
folder.mkdir(parents=True, exist_ok=True)

# 1. Nine faces of nobody, each as a file and all on one sheet.
task = velatura.Generate.from_pretrained("vae-faces")
faces = task(9, seed=7)
faces.save(folder / "faces", overwrite=True)
faces.save_grid(folder / "faces.png", overwrite=True)
print(f"made: {len(faces.images)} images of {faces.images[0].size} by {faces.made_by}")

# 2. Image 3 of a seed is the same bytes however many there are.
alone = task(4, seed=7).pictures[3].pixels
print("the same among others:", np.array_equal(alone, faces.pictures[3].pixels))

# 3. What is made from latents is nearer to the mean face, the smaller they are.
task(9, seed=7, truncation=0.6).save_grid(folder / "usual-faces.png", overwrite=True)

# 4. From face 0 to face 4, and back: an animation.
task(seed=7, interpolate=(0, 4), frames=12).save_animation(folder / "between.webp", overwrite=True)

# 5. Latents are numbers: keep them, change them, make the images again.
path = faces.latents.save(folder / "faces.safetensors", overwrite=True)
print("the same from latents:", np.array_equal(task(latents=path).grid.pixels, faces.grid.pixels))

# 6. Larger, by the upscaler.
large = task(1, seed=7, upscale=4)
large.save_grid(folder / "large-face.png", overwrite=True)
print("enlarged:", large.images[0].size)

# 7. Every error is one line that says what was got, what was expected and the next step.
try:
    task(1, class_name="sea")
except velatura.InputError as error:
    print(f"refused: {error}")
