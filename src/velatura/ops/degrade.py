"""What happens to photographs on their way: blur, resampling, noise, JPEG. For making pairs to train on.

An *operation* takes an image and a generator of random numbers and gives a new image::

    operation(image, rng) -> image

    random_blur, random_noise, random_jpeg, random_ringing      operations, once `partial` has set their ranges
    random_grain, random_reduction, random_halftone, random_fading
    sometimes, shuffled, chain                                  put operations together

and below them stand the same things with nothing random but the noise itself: `blur`, `gaussian_noise`,
`poisson_noise`, `speckle_noise`, `salt_and_pepper`, `jpeg`, `halftone`, `fade`. Images are float32 (H, W, 3), RGB,
0..1; nothing given is changed, and the same state of the generator gives the same image. `second_order` is
Real-ESRGAN's chain (Wang et al. 2021, arXiv 2107.10833), `unstructured` that of Wan et al. for old photographs (2020,
arXiv 2004.09484); what tears, scratches and stains do is in `velatura.ops.damage`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, irfft2, next_fast_len, rfft2
from scipy.special import j1

from velatura.ops.resize import Kernel, resize

__all__ = [
    "PHOTO",
    "UNFADED",
    "Fading",
    "Operation",
    "Stage",
    "blur",
    "chain",
    "fade",
    "gaussian_kernel",
    "gaussian_noise",
    "grey",
    "halftone",
    "jpeg",
    "poisson_noise",
    "random_blur",
    "random_fading",
    "random_grain",
    "random_halftone",
    "random_jpeg",
    "random_noise",
    "random_reduction",
    "random_resize",
    "random_ringing",
    "salt_and_pepper",
    "second_order",
    "shuffled",
    "sinc_kernel",
    "sometimes",
    "speckle_noise",
    "unfade",
    "unstructured",
]

Image = NDArray[np.float32]
Operation = Callable[[Image, np.random.Generator], Image]
Range = tuple[float, float]

# --- blur -------------------------------------------------------------------------------------------------------------


def gaussian_kernel(sigma: float, across: float | None = None, angle: float = 0.0, power: float = 1.0) -> Image:
    """Give a Gaussian that may be longer than wide, ``exp(-q^power / 2)`` with ``q`` the squared distance in sigmas.

    Parameters
    ----------
    sigma, across : float
        Pixels, along and across; as wide as long if `across` is not given.
    angle : float
        Radians from the rows to the columns.
    power : float
        1 is the Gaussian; less has longer tails, more a flatter top (Real-ESRGAN, section 3.1, after Liu et al. 2020).

    Returns
    -------
    ndarray of float32, (2 r + 1, 2 r + 1)
        Sum 1; r is the longer sigma's triple, at least 1, at most 10 pixels as in Real-ESRGAN.

    Examples
    --------
    >>> gaussian_kernel(0.5).round(2)
    array([[0.01, 0.08, 0.01],
           [0.08, 0.62, 0.08],
           [0.01, 0.08, 0.01]], dtype=float32)
    """
    across = sigma if across is None else across
    radius = int(np.clip(np.ceil(3 * max(sigma, across) - 0.5), 1, 10))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * ((u / sigma) ** 2 + (v / across) ** 2) ** power)
    return (kernel / kernel.sum()).astype(np.float32)


def sinc_kernel(cutoff: float, radius: int) -> Image:
    """Give the ideal low pass in two directions, cut off at `radius`: it rings, as sharpened and resized pictures do.

    ``k(r) = c / (2 pi r) J1(c r)``, Real-ESRGAN, equation 6.

    Parameters
    ----------
    cutoff : float
        Radians per pixel; pi and above hardly change a picture.
    radius : int
        Pixels.

    Returns
    -------
    ndarray of float32, (2 r + 1, 2 r + 1)
        Sum 1.
    """
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    distance = np.hypot(x, y)
    distance[radius, radius] = 1
    kernel = cutoff / (2 * np.pi * distance) * j1(cutoff * distance)
    kernel[radius, radius] = cutoff**2 / (4 * np.pi)  # its limit
    return (kernel / kernel.sum()).astype(np.float32)


def blur(image: Image, kernel: Image) -> Image:
    """Convolve an image with a kernel of odd sides; beyond the border it is mirrored.

    Examples
    --------
    >>> bool(np.allclose(blur(np.full((6, 5, 3), 0.25, np.float32), gaussian_kernel(1.0)), 0.25))
    True
    """
    (height, width), (rows, cols) = image.shape[:2], kernel.shape
    top, left = rows // 2, cols // 2
    padded = np.pad(image.transpose(2, 0, 1), ((0, 0), (top, top), (left, left)), mode="symmetric")
    # The upper left of a cyclic convolution holds what went round; the rest is exact.
    size = [next_fast_len(n, real=True) for n in padded.shape[1:]]
    product = np.asarray(rfft2(padded, size)) * np.asarray(rfft2(kernel, size))
    done = np.asarray(irfft2(product, size))[:, 2 * top : 2 * top + height, 2 * left : 2 * left + width]
    return np.ascontiguousarray(done.transpose(1, 2, 0))


def random_blur(image: Image, rng: np.random.Generator, sigma: Range = (0.2, 3.0), ringing: float = 0.1) -> Image:
    """Blur by one of Real-ESRGAN's kernels: half of them round, the rest longer than wide; a share of them ringing.

    Parameters
    ----------
    sigma : (float, float)
        Pixels.
    ringing : float
        Share of `sinc_kernel`.
    """
    if rng.random() < ringing:
        return random_ringing(image, rng)
    sigmas = rng.uniform(*sigma, 2)
    is_round = rng.random() < 0.5
    # Power: Real-ESRGAN draws 0.5..4 for a sixth and plateaus for another; about as many here have no Gaussian's form.
    power = 1.0 if rng.random() < 0.7 else float(np.exp(rng.uniform(np.log(0.5), np.log(4))))
    kernel = gaussian_kernel(sigmas[0], None if is_round else sigmas[1], rng.uniform(0, np.pi), power)
    return blur(image, kernel)


def random_ringing(image: Image, rng: np.random.Generator, cutoff: Range = (np.pi / 3, np.pi)) -> Image:
    """Blur by `sinc_kernel`, of 7 to 21 pixels."""
    return blur(image, sinc_kernel(rng.uniform(*cutoff), int(rng.integers(3, 11))))


# --- size -------------------------------------------------------------------------------------------------------------

KERNELS: tuple[Kernel, ...] = ("area", "linear", "bicubic")  # Real-ESRGAN, section 3.1


def random_resize(image: Image, rng: np.random.Generator, height: int, width: int) -> Image:
    """Resample to a size by a random kernel; not clipped.

    Returns
    -------
    ndarray of float32, (height, width, 3)
    """
    return resize(image, height, width, KERNELS[rng.integers(len(KERNELS))])


def random_reduction(image: Image, rng: np.random.Generator, factor: Range = (0.5, 1.0)) -> Image:
    """Shrink and enlarge again, both by random kernels: the size stays, detail goes (Wan et al. 2020, section 4.1)."""
    height, width = image.shape[:2]
    share = rng.uniform(*factor)
    small = random_resize(image, rng, max(round(share * height), 1), max(round(share * width), 1))
    return random_resize(small, rng, height, width)


# --- noise ------------------------------------------------------------------------------------------------------------


def gaussian_noise(image: Image, rng: np.random.Generator, sigma: float, *, grey: bool = False) -> Image:
    """Add noise of one strength everywhere, as amplifiers do.

    Parameters
    ----------
    sigma : float
        Standard deviation, 0..1.
    grey : bool
        The same in red, green and blue.

    Returns
    -------
    ndarray of float32, (H, W, 3)
        Not clipped.
    """
    noise = rng.standard_normal((*image.shape[:2], 1 if grey else image.shape[2]), dtype=np.float32)
    return image + noise * np.float32(sigma)  # type: ignore[return-value]


def poisson_noise(image: Image, rng: np.random.Generator, photons: float, *, grey: bool = False) -> Image:
    """Count photons: noise that is stronger where it is bright, most visible where it is dark.

    Parameters
    ----------
    photons : float
        That make up a value of 1; the noise of a value v has the variance v / photons.
    grey : bool
        Count those of luma, and add what is too many or too few to red, green and blue.

    Returns
    -------
    ndarray of float32, (H, W, 3)
        Not clipped.
    """
    light = (image @ LUMA)[..., None] if grey else image
    light = light.clip(0, None)
    return image + (rng.poisson(light * photons) / np.float32(photons) - light).astype(np.float32)


def speckle_noise(image: Image, rng: np.random.Generator, sigma: float, *, grey: bool = False) -> Image:
    """Multiply by noise, ``v (1 + n)``, as the grain of paper and coherent light do: none where it is black.

    Parameters
    ----------
    sigma : float
        Standard deviation of n.
    grey : bool
        The same in red, green and blue.

    Returns
    -------
    ndarray of float32, (H, W, 3)
        Not clipped.
    """
    return image * gaussian_noise(np.ones_like(image), rng, sigma, grey=grey)


def salt_and_pepper(image: Image, rng: np.random.Generator, share: float) -> Image:
    """Make a share of the pixels white or black, half of them each."""
    drawn = rng.random(image.shape[:2], np.float32)[..., None]
    lost = np.float32(share)
    return np.where(drawn < lost, (drawn < lost / 2).astype(np.float32), image)


def random_noise(
    image: Image,
    rng: np.random.Generator,
    sigma: Range = (1 / 255, 30 / 255),
    photons: Range = (60, 5000),
    grey: float = 0.4,
) -> Image:
    """Add `gaussian_noise` or `poisson_noise`, half of the times each.

    Parameters
    ----------
    sigma, photons : (float, float)
        Drawn evenly, and evenly in their logarithm.
    grey : float
        Share of the noise that has no colour (Real-ESRGAN: .4).
    """
    no_color = bool(rng.random() < grey)
    if rng.random() < 0.5:
        return gaussian_noise(image, rng, rng.uniform(*sigma), grey=no_color)
    return poisson_noise(image, rng, float(np.exp(rng.uniform(*np.log(photons)))), grey=no_color)


def random_grain(
    image: Image, rng: np.random.Generator, sigma: Range = (5 / 255, 50 / 255), gray: float = 0.4
) -> Image:
    """Add one of four kinds of noise: Gaussian, Poisson, speckle, or salt and pepper.

    Parameters
    ----------
    sigma : (float, float)
        Standard deviation at middle grey of each kind but the last, which takes up to 2 % of the pixels.
    gray : float
        Share of the noise that has no colour.

    Returns
    -------
    ndarray of float32, (H, W, 3)
        0..1.
    """
    strength, no_color = rng.uniform(*sigma), bool(rng.random() < gray)
    match int(rng.choice(4, p=(0.4, 0.25, 0.25, 0.1))):
        case 0:
            noisy = gaussian_noise(image, rng, strength, grey=no_color)
        case 1:
            noisy = poisson_noise(image, rng, 0.5 / strength**2, grey=no_color)
        case 2:
            noisy = speckle_noise(image, rng, 2 * strength, grey=no_color)
        case _:
            noisy = salt_and_pepper(image, rng, rng.uniform(0, 0.02))
    return noisy.clip(0, 1)


# --- JPEG -------------------------------------------------------------------------------------------------------------

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601
# To luma and the two colour differences, JFIF 1.02.
TO_YCC = np.array([LUMA, [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
TO_RGB = np.linalg.inv(TO_YCC).astype(np.float32)
# What is divided by at quality 50, ITU-T T.81, tables K.1 and K.2.
LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *4 * ((99, 99, 99, 99, 99, 99, 99, 99),),
)
BLOCK = 8  # pixels: what one transform covers


def jpeg(image: Image, quality: int, *, subsample: bool = True) -> Image:
    """Give what is left of an image in a JPEG file, without the file.

    All that a baseline JPEG loses is here: 8 bits, halved chroma, and the rounding of the 8x8 cosine transform by the
    standard's tables, scaled as the Independent JPEG Group's library does. What a file adds to that, loses nothing.

    Parameters
    ----------
    image : ndarray of float32, (H, W, 3)
        RGB, 0..1; what lies beyond is clipped.
    quality : int
        1..100.
    subsample : bool
        Chroma at half the size (4:2:0), as most files have it; else 4:4:4.

    Returns
    -------
    ndarray of float32, (H, W, 3)
        In steps of 1 / 255.

    Raises
    ------
    ValueError
        Another quality.

    Examples
    --------
    >>> grey = np.full((9, 12, 3), 128 / 255, np.float32)
    >>> bool(np.allclose(jpeg(grey, 50), grey))
    True
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"got quality {quality}; expected 1 to 100")
    height, width = image.shape[:2]
    eight_bit = np.rint(255 * image.clip(0, 1))
    unit = 2 * BLOCK if subsample else BLOCK
    # The library repeats the last pixel, too.
    padded = np.pad(eight_bit, ((0, -height % unit), (0, -width % unit), (0, 0)), mode="edge")
    luma, *chroma = np.rint(np.tensordot(TO_YCC, padded, (1, 2)))
    planes = [_quantised(luma - 128, LUMA_TABLE, quality)]
    for plane in chroma:
        if subsample:
            plane = np.rint(plane.reshape(len(plane) // 2, 2, -1, 2).mean((1, 3)))
        plane = _quantised(plane, CHROMA_TABLE, quality)
        # Linear in between, at the places where four pixels were averaged: the library's "fancy upsampling".
        planes.append(resize(plane, luma.shape[0], luma.shape[1], "linear") if subsample else plane)
    rgb = np.tensordot(np.stack(planes)[:, :height, :width], TO_RGB, (0, 1)) + 128
    return (np.rint(rgb.clip(0, 255)) / 255).astype(np.float32)


def random_jpeg(image: Image, rng: np.random.Generator, quality: Range = (30, 95), subsample: float = 0.8) -> Image:
    """Pass through `jpeg`; a share of the files halve chroma."""
    halved = bool(rng.random() < subsample)
    return jpeg(image, round(rng.uniform(*quality)), subsample=halved)


def _quantised(plane: Image, table: tuple[tuple[int, ...], ...], quality: int) -> Image:
    """Round the cosine transform of 8x8 blocks: (H, W), about 0, both multiples of 8."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = ((np.array(table) * percent + 50) // 100).clip(1, 255).astype(np.float32).ravel()
    rows, cols = (n // BLOCK for n in plane.shape)
    transform = _transform()
    blocks = plane.reshape(rows, BLOCK, cols, BLOCK).transpose(0, 2, 1, 3).reshape(-1, BLOCK**2)
    levels = blocks @ transform / steps
    blocks = np.trunc(levels + np.copysign(0.5, levels)) * steps @ transform.T  # halves go outward, as in the library
    whole = blocks.reshape(rows, cols, BLOCK, BLOCK).transpose(0, 2, 1, 3).reshape(plane.shape)
    return np.rint(whole.clip(-128, 127))


@lru_cache(maxsize=1)
def _transform() -> Image:
    """The cosine transform of a block as one matrix: pixels (64) times it are coefficients (64)."""
    one = np.asarray(dct(np.eye(BLOCK), norm="ortho", axis=0)).T
    return np.kron(one, one).astype(np.float32)


# --- print and age ----------------------------------------------------------------------------------------------------


def grey(image: Image) -> Image:
    """Give luma in all three channels."""
    return np.repeat((image @ LUMA)[..., None], 3, axis=2)


def halftone(image: Image, period: float, angle: float, softness: float = 0.5) -> Image:
    """Print in dots, as books and newspapers do.

    Parameters
    ----------
    period : float
        Distance of the dots in pixels, at least 2.
    angle : float
        Of the screen of green, in radians; red and blue are turned by 30 degrees either way, so that dots of different
        inks do not fall on each other. An image whose channels are equal has one screen.
    softness : float
        Range of values over which a dot's edge goes from ink to paper.

    Returns
    -------
    ndarray of float32, (H, W, 3)
        0..1; of the same mean over some dots as the image, for values that are not within `softness` of the ends.
    """
    is_grey = bool((image[..., :1] == image).all())
    turns = (angle,) if is_grey else (angle + np.pi / 6, angle, angle - np.pi / 6)
    height, width = image.shape[:2]
    screen = np.stack([_screen(height, width, period, turn) for turn in turns], 2)
    return ((image - screen) / np.float32(softness) + np.float32(0.5)).clip(0, 1).astype(np.float32)


def _screen(height: int, width: int, period: float, angle: float) -> Image:
    """Thresholds that are evenly distributed over 0..1 and have a peak per dot."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    turned = np.stack([x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)]) / period
    s = np.abs(2 * (turned % 1) - 1).mean(0)  # of two triangle waves: what it takes up to s is 2 s^2
    return np.where(s < 0.5, 2 * s**2, 1 - 2 * (1 - s) ** 2)  # type: ignore[return-value]


def random_halftone(image: Image, rng: np.random.Generator, period: Range = (2.5, 5.0)) -> Image:
    """Mix with `halftone`: a scan seldom shows bare dots."""
    dots = halftone(image, rng.uniform(*period), rng.uniform(0, np.pi / 2), rng.uniform(0.3, 1.0))
    share = np.float32(rng.uniform(0.3, 0.9))
    return image + share * (dots - image)  # type: ignore[return-value]


@dataclass(frozen=True)
class Fading:
    """What light, time and paper did to the colours of a whole photograph.

    ``y_c = black_c + (white_c - black_c) m_c^gamma_c`` for each channel c, with ``m = luma + saturation (x - luma)``.

    Attributes
    ----------
    black, white, gamma : (float, float, float)
        Of red, green and blue: where black and white have gone to, and how the tones in between bend.
    saturation : float
        What is left of the colours, above 0.
    """

    black: tuple[float, float, float] = (0.0, 0.0, 0.0)
    white: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0


#: Nothing has happened.
UNFADED = Fading()


def fade(image: Image, fading: Fading) -> Image:
    """Fade and tint an image, the same everywhere.

    Examples
    --------
    >>> sepia = Fading(black=(0.1, 0.05, 0.0), white=(1.0, 0.9, 0.7))
    >>> fade(np.ones((1, 1, 3), np.float32), sepia)[0, 0]
    array([1. , 0.9, 0.7], dtype=float32)
    """
    if fading == UNFADED:
        return image
    black, white, gamma = (np.array(values, np.float32) for values in (fading.black, fading.white, fading.gamma))
    luma = (image @ LUMA)[..., None]
    mixed = (luma + np.float32(fading.saturation) * (image - luma)).clip(0, 1)
    return black + (white - black) * mixed**gamma  # type: ignore[return-value]


def unfade(image: Image, fading: Fading) -> Image:
    """Undo `fade`, up to what it clipped; what lies beyond black and white is clipped."""
    black, white, gamma = (np.array(values, np.float32) for values in (fading.black, fading.white, fading.gamma))
    mixed = ((image - black) / (white - black)).clip(0, 1) ** (1 / gamma)
    luma = (mixed @ LUMA)[..., None]
    return (luma + (mixed - luma) / np.float32(fading.saturation)).clip(0, 1)


def random_fading(rng: np.random.Generator, strength: float = 1.0) -> Fading:
    """Draw how a print has faded: less contrast, paper that yellows, dyes that go at different rates.

    Half of the prints are toned: black and white on the way from brown to cream. In the others each dye has faded by
    itself, so that the tint of the shadows is any, and colours are pale.

    Parameters
    ----------
    strength : float
        1 is the full range; 0 changes nothing.
    """
    age = strength * rng.uniform(0.15, 1.0)
    yellow = np.array([rng.uniform(0, 0.08), rng.uniform(0.02, 0.2), rng.uniform(0.1, 0.45)])
    lifted = np.array([rng.uniform(0.05, 0.3), rng.uniform(0, 0.18), rng.uniform(0, 0.12)])
    bent = rng.normal(0, 0.15, 3)
    saturation = 1 - age * rng.uniform(0, 0.6)
    if rng.random() < 0.5:
        lifted = rng.permutation(lifted)
        yellow = yellow * rng.uniform(0.2, 1.0)
    else:
        bent[:] = bent[0]
    values = (age * lifted, 1 - age * yellow - age * rng.uniform(0, 0.12), np.exp(age * bent))
    black, white, gamma = (tuple(map(float, found)) for found in values)
    return Fading(black, white, gamma, saturation)  # type: ignore[arg-type]


# --- putting together -------------------------------------------------------------------------------------------------


def sometimes(operation: Operation, share: float) -> Operation:
    """Give an operation that happens to a share of the images, and leaves the others alone."""
    return lambda image, rng: operation(image, rng) if rng.random() < share else image


def shuffled(*operations: Operation) -> Operation:
    """Give an operation that does all of these, in random order."""
    return lambda image, rng: chain(image, rng, *(operations[i] for i in rng.permutation(len(operations))))


def chain(image: Image, rng: np.random.Generator, *operations: Operation) -> Image:
    """Do one operation after the other.

    Examples
    --------
    >>> from functools import partial
    >>> image, rng = np.full((16, 16, 3), 0.5, np.float32), np.random.default_rng(0)
    >>> worn = chain(image, rng, random_blur, sometimes(partial(random_noise, sigma=(0.1, 0.2)), 0.7), random_jpeg)
    >>> worn.shape, worn.dtype
    ((16, 16, 3), dtype('float32'))
    """
    for operation in operations:
        image = operation(image, rng)
    return image


@dataclass(frozen=True)
class Stage:
    """The ranges of one round of blur, resizing, noise and JPEG.

    Attributes
    ----------
    blur : float
        Share of the images that are blurred.
    sigma : (float, float)
        Of the blur, pixels.
    sizes : (float, float)
        Factors of height and width.
    larger, smaller : float
        Shares of the images that become so; the rest keep their size.
    noise, photons : (float, float)
        Standard deviation, 0..1, and what `poisson_noise` wants.
    quality : (float, float)
        Of JPEG.
    """

    blur: float
    sigma: Range
    sizes: Range
    larger: float
    smaller: float
    noise: Range
    photons: Range
    quality: Range


#: Real-ESRGAN's two rounds, but for the upper end of blur and noise: a tenth of its network would smooth everything.
PHOTO = (
    Stage(1.0, (0.2, 2.4), (0.3, 1.5), 0.2, 0.7, (1 / 255, 20 / 255), (100, 5000), (35, 95)),
    Stage(0.8, (0.2, 1.2), (0.5, 1.2), 0.3, 0.4, (1 / 255, 15 / 255), (150, 5000), (40, 95)),
)


def second_order(
    image: Image, rng: np.random.Generator, height: int, width: int, stages: tuple[Stage, ...] = PHOTO
) -> Image:
    """Degrade as photographs are that were taken, saved, sent, shrunk and saved again.

    Real-ESRGAN, section 3 and figure 2: blur, resize, noise and JPEG, twice, the second time towards the size that is
    wanted; at the end a low pass that rings, before or after the last JPEG.

    Differs from the paper: Poisson noise is named by its photons; no plateau-shaped kernels, but flat-topped ones.

    Parameters
    ----------
    image : ndarray of float32, (H, W, 3)
        RGB, 0..1.
    rng : numpy.random.Generator
        Where all randomness comes from.
    height, width : int
        The size of the result.
    stages : tuple of Stage

    Returns
    -------
    ndarray of float32, (height, width, 3)
        0..1, in steps of 1 / 255.

    Examples
    --------
    >>> image = np.full((64, 64, 3), 0.5, np.float32)
    >>> second_order(image, np.random.default_rng(0), 16, 16).shape
    (16, 16, 3)
    """
    full = np.array(image.shape[:2])
    for i, stage in enumerate(stages):
        if rng.random() < stage.blur:
            image = random_blur(image, rng, stage.sigma)
        # Before the last round the sizes are shares of the original, in it those of the result.
        base = np.array([height, width]) if i == len(stages) - 1 else full
        new = np.maximum(np.rint(base * _factor(rng, stage)).astype(int), BLOCK)
        image = random_resize(image, rng, *new)
        image = random_noise(image, rng, stage.noise, stage.photons).clip(0, 1)
        if i < len(stages) - 1:
            image = random_jpeg(image, rng, stage.quality)

    def last_size(image: Image, rng: np.random.Generator) -> Image:
        return sometimes(random_ringing, 0.8)(random_resize(image, rng, height, width), rng)

    def last_file(image: Image, rng: np.random.Generator) -> Image:
        return random_jpeg(image, rng, stages[-1].quality)

    done = shuffled(last_size, last_file)(image, rng)
    return (np.rint(255 * done.clip(0, 1)) / 255).astype(np.float32)


def _factor(rng: np.random.Generator, stage: Stage) -> float:
    kind = rng.random()
    if kind < stage.larger:
        return rng.uniform(1, stage.sizes[1])
    return rng.uniform(stage.sizes[0], 1) if kind < stage.larger + stage.smaller else 1.0


def unstructured(image: Image, rng: np.random.Generator, share: float = 0.7) -> Image:
    """Degrade as Wan et al. 2020 (arXiv 2004.09484, section 4.1) do before damage is laid on top.

    Blur (sigma 1 to 5), noise (5 to 50 levels), half the size and back, JPEG 40 to 100, in random order, each for a
    share of the images.

    Differs from the paper: four kinds of noise (`random_grain`) in place of three; sizes and kernels are drawn evenly.

    Parameters
    ----------
    share : float
        Of the images that each of the four happens to.

    Returns
    -------
    ndarray of float32, (H, W, 3)
        0..1, in steps of 1 / 255.

    Examples
    --------
    >>> unstructured(np.full((32, 48, 3), 0.5, np.float32), np.random.default_rng(0)).shape
    (32, 48, 3)
    """

    def blurred(image: Image, rng: np.random.Generator) -> Image:
        return blur(image, gaussian_kernel(rng.uniform(1, 5)))

    def saved(image: Image, rng: np.random.Generator) -> Image:
        return random_jpeg(image, rng, (40, 100))

    steps = (blurred, random_grain, random_reduction, saved)
    done = shuffled(*(sometimes(step, share) for step in steps))(image, rng)
    return (np.rint(255 * done.clip(0, 1)) / 255).astype(np.float32)
