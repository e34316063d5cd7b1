"""Pictures from words, from Python: a text, a style, what lies between two texts.

python examples/imagine.py                     writes its pictures into velatura-example/
python examples/imagine.py FOLDER MODEL        by another model than the shipped one, such as your own file
"""

import sys
from pathlib import Path

import velatura

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "velatura-example")
folder.mkdir(parents=True, exist_ok=True)
model = sys.argv[2] if len(sys.argv) > 2 else None
if model is None and not velatura.Imagine.models():
    print("this version ships no model for pictures from words: train one, see docs/imagine.md")
    raise SystemExit

# 1. Four pictures of one text; the same seed gives the same bytes, and picture 0 is the same alone.
task = velatura.Imagine.from_pretrained(model)
flowers = task("a red flower with a yellow centre", count=4, seed=7)
flowers.save_grid(folder / "imagined.png", overwrite=True)
alone = task("a red flower with a yellow centre", seed=7)
assert (alone.pictures[0].pixels == flowers.pictures[0].pixels).all()

# 2. Background and pose from a picture, content from the text.
styled = task("this flower has blue petals", style=flowers.images[0], count=4)
styled.save_grid(folder / "imagined-style.png", overwrite=True)

# 3. From one text to another with the same noise.
task(interpolate=("a yellow flower", "a pink flower"), frames=8).save_grid(
    folder / "imagined-between.png", overwrite=True
)

# 4. Every error is one line.
try:
    task("?")
except velatura.InputError as error:
    print(f"refused: {error}")
