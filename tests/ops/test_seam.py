import numpy as np
import pytest
from reference import gaussian_poisson

from velatura.ops.gaussian_poisson import divergence, seam_flux
from velatura.ops.pyramid import halve
from velatura.ops.seam import Equation, Level, close_seam, correct_tile, double_correction, is_flat
from velatura.tiling import tiles


class Arrays:
    """A seam held in memory, for the tests."""

    def __init__(self, mask, difference):
        self.whole_mask, self.whole_difference = mask, difference
        self.shape = difference.shape

    def mask(self, rows, cols):
        return self.whole_mask[slice(*rows), slice(*cols)].astype(np.float32)

    def difference(self, rows, cols):
        return self.whole_difference[:, slice(*rows), slice(*cols)].astype(np.float32)


def scene(height=100, width=130, soft=False):
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:height, :width]
    radius = np.hypot((rows - height / 2) / (0.3 * height), (cols - width / 2) / (0.3 * width))
    mask = np.clip((1.3 - radius) / 0.3, 0, 1) if soft else (radius <= 1).astype(float)
    smooth = np.stack([np.sin(rows / 40 + shift) * np.cos(cols / 25) for shift in range(3)])
    return mask, 0.3 * smooth + rng.normal(0, 0.05, smooth.shape)


def finish(seam, half, equation, side):
    """Solve the finest level in windows of a given side."""
    out = np.zeros(seam.shape)
    for tile in tiles(*seam.shape[1:], side, equation.halo):
        mask = seam.mask(tile.outer_rows, tile.outer_cols)
        difference = seam.difference(tile.outer_rows, tile.outer_cols)
        if is_flat(mask):
            mask = difference = None
        out[:, *tile.inner] = correct_tile(mask, difference, half, tile, equation)
    return out


def chain(mask, difference, equation, levels):
    """Do the same from coarse to fine in float64, every level whole and by a direct solve."""
    pyramid = [(mask, difference)]
    for _ in range(levels):
        pyramid.append(tuple(halve(planes).astype(np.float64) for planes in pyramid[-1]))
    above = None
    for mask, difference in reversed(pyramid):
        reference = np.zeros_like(difference)
        if above is not None:
            size = mask.shape
            reference = double_correction(above, (0, size[0]), (0, size[1]), mask)
        flux = divergence(seam_flux(mask, difference, -2), seam_flux(mask, difference, -1))
        above = Level(mask, difference, gaussian_poisson(flux, reference, equation.form, equation.beta))
    return above.correction


@pytest.mark.parametrize("form", ["gradient", "printed", "code"])
@pytest.mark.parametrize("beta", [1.0, 0.1, 0.01])
def test_windows_against_direct_solves_of_every_level(form, beta):
    mask, difference = scene()
    equation = Equation(form, beta)
    seam = Arrays(mask, difference)
    got = finish(seam, close_seam(seam, equation, 3), equation, side=48)
    expected = chain(mask, difference, equation, 3)
    assert 255 * np.abs(got - expected).max() < 0.01  # grey levels; the project's bar is 0.5


def test_soft_masks_too():
    mask, difference = scene(soft=True)
    seam, equation = Arrays(mask, difference), Equation()
    got = finish(seam, close_seam(seam, equation, 2), equation, side=64)
    assert 255 * np.abs(got - chain(mask, difference, equation, 2)).max() < 0.01


def test_the_step_at_the_seam_is_spread():
    rows, cols = np.mgrid[:128, :128]
    mask = (np.hypot(rows - 64, cols - 64) < 32).astype(float)
    difference = np.full((1, 128, 128), 0.4)
    seam, equation = Arrays(mask, difference), Equation()
    correction = finish(seam, close_seam(seam, equation, 2), equation, side=64)[0]
    before = mask * difference[0]
    after = before + correction
    step = np.abs(np.diff(after[64])).max()
    assert np.abs(np.diff(before[64])).max() == pytest.approx(0.4)
    assert step < 0.06
    assert after[64, 64] == pytest.approx(0.4, abs=0.01)
    assert abs(after[64, 2]) < 0.001


def test_no_difference_gives_no_correction():
    mask, difference = scene()
    seam = Arrays(mask, np.zeros_like(difference))
    half = close_seam(seam, Equation(), 3)
    assert not half.correction.any()
    assert not finish(seam, half, Equation(), 48).any()
