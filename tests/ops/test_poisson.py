import numpy as np
import pytest
from reference import dirichlet

from velatura.ops.poisson import membrane, ring, solve_dirichlet


def ellipse(height, width, share=0.4):
    rows, cols = np.mgrid[:height, :width]
    return ((rows - height / 2) / (share * height)) ** 2 + ((cols - width / 2) / (share * width)) ** 2 <= 1


def masks():
    rng = np.random.default_rng(0)
    ring_shaped = ellipse(60, 47) & ~ellipse(60, 47, 0.2)
    touching = np.zeros((40, 50), bool)
    touching[:20, 30:] = True
    return {
        "ellipse": ellipse(90, 121),
        "hole": ring_shaped,
        "border": touching,
        "speckle": rng.random((33, 29)) < 0.7,
        "line": np.eye(24, dtype=bool) | np.eye(24, k=1, dtype=bool),
        "pixel": np.pad(np.ones((1, 1), bool), 2),
        "row": np.array([[False, True, True, True, False]]),
    }


@pytest.mark.parametrize("name", masks())
def test_against_a_direct_solve(name):
    free = masks()[name]
    rng = np.random.default_rng(1)
    values, source = rng.normal(0, 60, (3, *free.shape)), rng.normal(0, 20, (3, *free.shape))
    got = solve_dirichlet(values, free, source, tolerance=1e-6)
    np.testing.assert_allclose(got, dirichlet(values, free, source), atol=1e-4)
    np.testing.assert_array_equal(got[:, ~free], values[:, ~free])


@pytest.mark.parametrize("name", masks())
@pytest.mark.parametrize("tolerance", [1.0, 0.1])
def test_the_membrane_is_as_exact_as_asked(name, tolerance):
    free = masks()[name]
    values = np.random.default_rng(2).normal(0, 60, (3, *free.shape)).astype(np.float32)
    got = membrane(values, free, tolerance=tolerance)
    error = np.abs(got - dirichlet(values, free))[:, free]
    # An estimate, not a bound; white noise along the border is the worst case.
    assert error.max() < 3 * tolerance


def test_a_large_membrane_goes_through_coarser_grids():
    free = ellipse(300, 411)
    values = np.random.default_rng(3).normal(0, 60, (1, *free.shape)).astype(np.float32)
    got = membrane(values, free, tolerance=0.05)
    assert np.abs(got - dirichlet(values, free)).max() < 0.2


@pytest.mark.parametrize(("height", "width"), [(1, 2000), (3, 5000), (8, 900), (20, 3000), (3000, 13)])
def test_long_strips(height, width):
    free = np.ones((height, width), bool)
    free[:3, :3] = free[-2:, -4:] = False
    rng = np.random.default_rng(4)
    values = rng.normal(0, 60, (1, height, width)).astype(np.float32)
    flux = np.zeros((1, height, width), np.float32)
    flux[..., :-1] = rng.normal(0, 5, (1, height, width - 1))
    source = np.diff(flux, axis=-1, prepend=0) * free
    for got, expected in (
        (membrane(values, free, tolerance=0.1), dirichlet(values, free)),
        (solve_dirichlet(values, free, source, tolerance=0.1), dirichlet(values, free, source)),
    ):
        assert np.abs(got - expected).max() < 0.5


def test_a_tick_can_stop_the_work():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_dirichlet(np.zeros((1, 40, 40)), ellipse(40, 40), np.ones((1, 40, 40)), tick=stop)


def test_without_a_boundary_nothing_changes():
    free = np.ones((9, 7), bool)
    values = np.full((2, 9, 7), 5.0)
    np.testing.assert_allclose(solve_dirichlet(values, free), values)
    assert np.isfinite(membrane(values, free)).all()


def test_ring_is_what_touches():
    free = ellipse(20, 30)
    near = ring(free)
    assert not (near & free).any()
    rows, cols = np.nonzero(near)
    for row, col in zip(rows, cols, strict=True):
        sides = [(row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)]
        assert any(free[r, c] for r, c in sides if 0 <= r < 20 and 0 <= c < 30)
