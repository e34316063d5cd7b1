"""Free photographs to begin with: those that come with scikit-image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["SAMPLES", "Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one application can be tried on.

    Attributes
    ----------
    title : str
    application : str
    images : callable
        Gives uint8 arrays by the names of the application's inputs.
    place : callable
        Gives the options that go with them.
    """

    title: str
    application: str
    images: Callable[[], Mapping[str, np.ndarray]]
    place: Callable[[], Mapping[str, object]] = dict


def _scene(name: str) -> Sample:
    from velatura.samples import SCENES

    def images() -> Mapping[str, np.ndarray]:
        scene = SCENES[name]()
        return {"source": scene.source, "destination": scene.destination, "mask": scene.mask}

    def place() -> Mapping[str, object]:
        scene = SCENES[name]()
        return {"at": list(scene.at), "scale": scene.scale}

    titles = {"galaxies": "galaxies over the launch pad", "cat": "a cat in the coffee"}
    titles |= {"launch": "a rocket in the visor", "light": "one photograph in two lights"}
    return Sample(titles.get(name, name), "blend", images, place)


def _astronaut() -> Mapping[str, np.ndarray]:
    from skimage import data

    return {"image": data.astronaut()}


def _coffee() -> Mapping[str, np.ndarray]:
    from skimage import data

    return {"image": data.coffee()}


def _small_face() -> Mapping[str, np.ndarray]:
    from velatura.samples import face

    return {"image": face().small}


def _small_fur() -> Mapping[str, np.ndarray]:
    from velatura.samples import fur

    return {"image": fur().small}


def _worn() -> Mapping[str, np.ndarray]:
    from skimage import data

    from velatura.ops.damage import old_scan

    photo = data.astronaut()[:384, 64:448].astype(np.float32) / 255
    worn = old_scan(photo, np.random.default_rng(12)).image
    return {"photo": np.rint(255 * worn.clip(0, 1)).astype(np.uint8)}


def _style() -> Mapping[str, np.ndarray]:
    from skimage import data

    return {"content": data.coffee(), "style": data.immunohistochemistry()}


#: By the names that clients use.
SAMPLES: dict[str, Sample] = {
    "astronaut": Sample("a portrait", "inpaint", _astronaut),
    "coffee": Sample("a cup of coffee", "inpaint", _coffee),
    "worn": Sample("a worn print", "restore", _worn),
    "face": Sample("a small face", "upscale", _small_face),
    "fur": Sample("a cat's fur, small", "upscale", _small_fur),
    "stains": Sample("coffee, and stains for its style", "stylize", _style),
    "cat": _scene("cat"),
    "galaxies": _scene("galaxies"),
    "visor": _scene("launch"),
}
