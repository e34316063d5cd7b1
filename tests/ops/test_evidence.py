import math

import numpy as np
import pytest

from velatura.errors import InputError
from velatura.ops.evidence import FLOOR, Calibration, fit_calibration, variance_within
from velatura.ops.resize import RowResize


def test_the_share_of_detail_is_that_of_the_expected_error():
    calibration = Calibration(0.01, 2e-4)
    assert calibration.error(np.array([0, 2e-4, 1e3])) == pytest.approx([0, 0.005, 0.01], rel=1e-6)
    shares = [float(calibration.share(np.full((5, 5), variance))[2, 2]) for variance in (0, 1e-5, 1e-3, 0.2)]
    assert shares[0] == 0
    assert shares[0] < shares[1] < shares[2]
    assert shares[3] < shares[2]  # strong edges are known
    error = 0.01 / 1.2
    assert shares[2] == pytest.approx(error / (error + 1e-3 + FLOOR**2))
    assert (calibration.share(np.random.default_rng(0).random((9, 9)) * 100) <= 1).all()


def test_the_fit_is_of_means():
    """Errors differ tenfold at the same variance: what is found is their mean, not their median."""
    random, law = np.random.default_rng(0), Calibration(0.01, 3e-4)
    variance = np.exp(random.uniform(math.log(1e-6), math.log(0.05), 40_000))
    error = law.error(variance) * random.exponential(size=variance.shape)
    fitted = fit_calibration(variance, error)
    assert fitted.limit == pytest.approx(law.limit, rel=0.1)
    assert fitted.knee == pytest.approx(law.knee, rel=0.1)


@pytest.mark.parametrize(("variance", "error"), [(0.0, 0.01), (0.01, 0.0)])
def test_what_is_flat_or_without_error_is_refused(variance: float, error: float):
    with pytest.raises(InputError, match="the photographs are flat"):
        fit_calibration(np.full(100, variance), np.full(100, error))


@pytest.mark.parametrize("rows", [(0, 5), (2, 4)])
def test_the_variance_is_that_of_each_block(rows: tuple[int, int]):
    luma = np.random.default_rng(0).random((20, 12), np.float32)
    blocks = luma.reshape(5, 4, 3, 4).transpose(0, 2, 1, 3).reshape(5, 3, 16)
    found = variance_within(RowResize((20, 12), (5, 3), "area"), luma[4:] if rows[0] else luma, 4 * bool(rows[0]), rows)
    np.testing.assert_allclose(found, blocks.var(-1)[slice(*rows)], atol=1e-6)
