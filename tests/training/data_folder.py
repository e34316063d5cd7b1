"""A small data folder, made of scikit-image's photographs, with the layout of the real one."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.data import astronaut, cat, coffee

PHOTOGRAPHS = [astronaut(), cat(), coffee()]


def crop(seed: int, size: int = 80) -> bytes:
    """A PNG cut from one of the photographs."""
    rng = np.random.default_rng(seed)
    image = PHOTOGRAPHS[seed % 3]
    top, left = (int(rng.integers(n - 2 * size)) for n in image.shape[:2])
    cut = Image.fromarray(image[top : top + 2 * size, left : left + 2 * size]).resize((size, size))
    file = io.BytesIO()
    cut.save(file, "PNG")
    return file.getvalue()


def make_data_folder(folder: Path, per_set: int = 30) -> Path:
    """Write the four sets that blending uses, and faces256."""
    folder.mkdir(parents=True, exist_ok=True)
    people = [f"bio_{i:06d}" for i in range(per_set)]
    files = {
        "scenes96": [f"sea/{i}.png" for i in range(per_set)],
        "faces128": [f"{'gray' if i % 3 == 2 else 'color'}/{name}.png" for i, name in enumerate(people)],
        "faces256": [f"color/{name}.jpg" for name in people[::3]],
        "sr_t91_bsds400": [f"bsds500_{'val' if i % 5 == 0 else 'train'}/{i}.png" for i in range(3 * per_set)],
        "sr_hr_patches": [f"p{i:04d}.png" for i in range(2 * per_set)],
    }
    indices = {
        # Two files in a row are of one person, under names that differ in their middle names.
        "faces128": (
            ["file", "name"],
            [[file, f"Person{i // 2}, Ann" + " B." * (i % 2)] for i, file in enumerate(files["faces128"])],
        ),
        "sr_hr_patches": (
            ["file", "repository", "blob"],
            [[file, "photos", str(i // 2)] for i, file in enumerate(files["sr_hr_patches"])],
        ),
    }
    for name, paths in files.items():
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for seed, path in enumerate(paths):
                archive.writestr(path, crop(seed))
            if name in indices:
                header, rows = indices[name]
                text = io.StringIO()
                csv.writer(text).writerows([header, *rows])
                archive.writestr("index.csv", text.getvalue())
    return folder
