import numpy as np
import pytest
from reference import gaussian_poisson

from velatura.ops.gaussian_poisson import divergence, gaussian_kernel, halo_of, seam_flux, solve

FORMS = ["gradient", "printed", "code"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beta", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("shape", [(2, 24, 31), (1, 1, 9), (3, 5, 2)])
def test_closed_form_against_a_direct_solve(form, beta, shape):
    rng = np.random.default_rng(0)
    source, target = rng.normal(0, 40, shape), rng.normal(0, 40, shape)
    expected = gaussian_poisson(source, target, form, beta)
    exact = solve(source, target, beta=beta, form=form)
    np.testing.assert_allclose(exact, expected, atol=1e-8 * np.abs(expected).max())
    single = solve(source.astype(np.float32), target.astype(np.float32), beta=beta, form=form)
    assert single.dtype == np.float32
    assert np.abs(single - expected).max() < 0.01


def test_seam_flux_is_the_composites_error_of_gradient():
    rng = np.random.default_rng(1)
    source, destination, mask = rng.random((3, 6, 7)), rng.random((3, 6, 7)), rng.random((6, 7))
    composite = mask * source + (1 - mask) * destination
    for axis in (-1, -2):
        lower = np.take(mask, range(mask.shape[axis] - 1), axis)
        upper = np.take(mask, range(1, mask.shape[axis]), axis)
        between = (lower + upper) / 2
        wanted = between * np.diff(source, axis=axis) + (1 - between) * np.diff(destination, axis=axis)
        flux = seam_flux(mask, source - destination, axis)
        cut = flux[..., :-1] if axis == -1 else flux[:, :-1]
        np.testing.assert_allclose(cut, wanted - np.diff(composite, axis=axis), atol=1e-12)


def test_divergence_is_minus_the_adjoint_of_the_gradient():
    rng = np.random.default_rng(2)
    u, rows, cols = rng.random((3, 1, 5, 6))
    rows[..., -1, :] = 0
    cols[..., -1] = 0
    gradient = (np.diff(u, axis=-2) * rows[..., :-1, :]).sum() + (np.diff(u, axis=-1) * cols[..., :-1]).sum()
    assert -(u * divergence(rows, cols)).sum() == pytest.approx(gradient)


def test_gaussian_sums_to_one():
    half = gaussian_kernel(0.5)
    assert half[0] + 2 * half[1:].sum() == pytest.approx(1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beta", [1.0, 0.1, 0.01])
def test_a_source_beyond_the_halo_is_not_felt(form, beta):
    halo = halo_of(beta, form)
    size = 3 * halo
    flux = np.zeros((1, size, 8))
    flux[0, : size - halo - 2] = np.random.default_rng(0).normal(size=(size - halo - 2, 1))
    felt = np.abs(solve(divergence(flux, np.zeros_like(flux)), beta=beta, form=form))
    assert felt[0, -1].max() < 1e-3 * felt.max()


def test_halo_grows_as_beta_falls():
    assert halo_of(1.0) <= 16 < halo_of(0.1) < halo_of(0.01) <= 128
