"""Stylize from Python: any picture as a style, mixed, saved, with the photograph's own colours; or step by step.

python examples/stylize.py            writes its pictures into velatura-example/
python examples/stylize.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from skimage import data

import velatura
from velatura import Stylize, catalog

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "velatura-example")
folder.mkdir(parents=True, exist_ok=True)

# A photograph, 200 x 300 pixels, and two pictures that will be styles: NumPy arrays, uint8.
photo = np.ascontiguousarray(data.coffee()[100:300, 150:450])
stains = np.ascontiguousarray(data.immunohistochemistry()[:200, :200])
stars = np.ascontiguousarray(data.hubble_deep_field()[200:500, 200:500])

# 1. By optimisation, for those who wait: the picture itself is changed, step by step.
result = velatura.stylize(photo, stains, method="optimize", steps=20)
assert result.curve is not None
print(f"optimised: {result.image.shape}, loss {result.curve.total[0]:.2f} to {result.curve.total[-1]:.2f}")
result.save(folder / "optimised.png", overwrite=True)

# 2. With a plot of the losses and a picture every ten steps; only light and dark change, colours stay.
for old in [*folder.glob("loss.svg"), *(folder / "steps").glob("*.png")]:
    old.unlink()
task = Stylize.from_pretrained()
patient = task(
    photo,
    stars,
    method="optimize",
    steps=20,
    keep_color="luminance",
    curve=str(folder / "loss.svg"),
    frames=str(folder / "steps"),
)
print(f"pictures: {sorted(path.name for path in (folder / 'steps').iterdir())}")

# 3. In one pass, if the network is there: milliseconds instead of minutes, any style, any size.
if any(card.name == Stylize.default_model for card in catalog.cards()):
    painted = task(photo, stains, style_scale=1.5)
    painted.save(folder / "painted.png", overwrite=True)
    # Several styles, in shares; half of the way from the photograph to them.
    mixed = task(photo, [stains, stars], weights=(0.7, 0.3), strength=0.5)
    mixed.save(folder / "mixed.png", overwrite=True)
    # A style is 100 numbers; saved, they paint without the picture: frames of a film, for example.
    saved = folder / "stains.safetensors"
    saved.unlink(missing_ok=True)
    task(photo, stains, style_out=str(saved))
    assert np.array_equal(task(photo, saved).image, task(photo, stains).image)
    # Only a part: white = paint.
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[:, 150:] = 255
    assert np.array_equal(task(photo, stains, mask).image[:, :150], photo[:, :150])

# 4. Strength 0 is the photograph as it was.
assert np.array_equal(task(photo, stains, method="optimize", strength=0).image, photo)

# 5. Every error is one line that says what was got, what was expected and the next step.
try:
    task(photo, stains, method="optimize", style_layers="conv9")
except velatura.InputError as error:
    print(f"refused: {error}")
