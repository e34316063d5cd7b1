"""Words for colours, and for the colours of a flower in the middle of a photograph.

A word is decided by hue, saturation and value alone. What belongs to the flower is guessed from where a colour is:
in the middle more often than at the border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLORS", "centre_color", "color_names", "hsv", "petal_colors"]

Pixels = NDArray[np.uint8]

#: The words, in the order of the numbers that `color_names` gives.
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "brown", "grey", "black")

# Upper ends of the hues, 0..180 as in OpenCV, and their words; beyond the last it is red again.
_HUES = ((9, "red"), (21, "orange"), (34, "yellow"), (82, "green"), (131, "blue"), (152, "purple"), (172, "pink"))
_PETALS = ("red", "orange", "yellow", "blue", "purple", "pink", "white")  # green is leaves, the rest shadow
_SECOND = 0.35  # a second colour counts from this share of the first
_REACH = 0.4  # of the side: the ellipse in which a flower is looked for
_CENTRE = 0.08  # of the side: the disc that is a flower's centre
_PLAIN = 0.4  # of the disc: so much of it has to be of one colour


def hsv(rgb: Pixels) -> NDArray[np.int64]:
    """Give hue (0..179), saturation and value (0..255) of colours (..., 3), as OpenCV rounds them.

    Examples
    --------
    >>> hsv(np.uint8([[255, 0, 0], [0, 0, 128]])).tolist()
    [[0, 255, 255], [120, 255, 128]]
    """
    r, g, b = np.moveaxis(rgb.astype(np.float64), -1, 0)
    high, low = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    spread = high - low
    safe = np.where(spread > 0, spread, 1)
    turn = np.select(
        [high == r, high == g], [(g - b) / safe, 2 + (b - r) / safe], default=4 + (r - g) / safe
    )  # sixths of the circle
    hue = np.where(spread > 0, 30 * turn, 0) % 180
    saturation = 255 * spread / np.where(high > 0, high, 1)
    return np.stack([np.rint(hue) % 180, np.rint(saturation), high], axis=-1).astype(np.int64)


def color_names(rgb: Pixels) -> NDArray[np.int64]:
    """Name colours.

    Parameters
    ----------
    rgb : ndarray of uint8, (..., 3)

    Returns
    -------
    ndarray of int64, (...)
        Indices into `COLORS`.

    Examples
    --------
    >>> [COLORS[i] for i in color_names(np.uint8([[250, 240, 245], [200, 30, 30], [250, 220, 20]]))]
    ['white', 'red', 'yellow']
    """
    hue, saturation, value = np.moveaxis(hsv(rgb), -1, 0)
    number = {word: i for i, word in enumerate(COLORS)}
    ends, words = [end for end, _ in _HUES], [number[word] for _, word in _HUES]
    found = np.array([*words, number["red"]])[np.searchsorted(ends, hue, side="right")]
    found[(found == number["red"]) & (saturation < 130) & (value > 140)] = number["pink"]
    warm = (found == number["orange"]) | (found == number["yellow"])
    found[warm & (value < 110)] = number["brown"]
    pale = saturation < 48
    found[pale & (value > 150)] = number["white"]
    found[pale & (value <= 150)] = number["grey"]
    found[value < 45] = number["black"]
    return found


def petal_colors(rgb: Pixels) -> list[str]:
    """Name the one or two colours of the petals, the commoner first; nothing where only leaves and shadow are seen.

    Parameters
    ----------
    rgb : ndarray of uint8, (H, W, 3)
        A photograph with one flower in the middle.

    Examples
    --------
    >>> image = np.full((64, 64, 3), (20, 90, 20), np.uint8)
    >>> image[16:48, 16:48] = 220, 30, 30
    >>> petal_colors(image)
    ['red']
    """
    names = color_names(rgb)
    counts = np.bincount(names[_flower(rgb, names)], minlength=len(COLORS))
    found = sorted(((counts[COLORS.index(word)], word) for word in _PETALS), reverse=True)[:2]
    return [word for count, word in found if count and count >= _SECOND * found[0][0]]


def centre_color(rgb: Pixels, petals: list[str]) -> str | None:
    """Name the colour of a flower's centre, if it is one colour and none of the petals'.

    Parameters
    ----------
    rgb : ndarray of uint8, (H, W, 3)
    petals : list of str
        The petals' colours.

    Examples
    --------
    >>> image = np.full((64, 64, 3), 255, np.uint8)
    >>> image[26:38, 26:38] = 240, 200, 20
    >>> centre_color(image, ["white"]), centre_color(image, ["yellow"])
    ('yellow', None)
    """
    names = color_names(rgb)
    height, width = names.shape
    y, x = np.ogrid[:height, :width]
    # The middle of the petals, not of the photograph.
    mine = np.isin(names, [COLORS.index(word) for word in petals]) & _flower(rgb, names)
    rows, columns = np.nonzero(mine) if mine.any() else (np.array([height / 2]), np.array([width / 2]))
    reach = _CENTRE * min(height, width)
    disc = (y - np.median(rows)) ** 2 + (x - np.median(columns)) ** 2 <= reach**2
    counts = np.bincount(names[disc], minlength=len(COLORS))
    best = int(counts.argmax())
    word = COLORS[best]
    return None if word in petals or counts[best] < _PLAIN * counts.sum() else word


def _flower(rgb: Pixels, names: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which pixels are the flower: in the ellipse, no leaf, of colours that are rarer at the border."""
    height, width = names.shape
    y, x = np.ogrid[:height, :width]
    inside = ((y - height / 2) / height) ** 2 + ((x - width / 2) / width) ** 2 <= _REACH**2
    border = np.ones_like(inside)
    edge = max(1, round(0.06 * min(height, width)))
    border[edge:-edge, edge:-edge] = False
    bins = (rgb.astype(np.int64) // 43) @ np.array([36, 6, 1])
    # One pixel is spread over all bins: no share is zero.
    shares = [(np.bincount(bins[part], minlength=216) + 1 / 216) / (part.sum() + 1) for part in (inside, border)]
    leaf = names == COLORS.index("green")
    found = inside & ~leaf & (shares[0] > shares[1])[bins]
    return found if found.sum() > 0.02 * found.size else inside & ~leaf
