import numpy as np
import pytest

from velatura.ops.latents import great_circle


def test_ends_and_lengths():
    first, second = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    found = great_circle(first, second, 9)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[[0, -1]], [first, second], atol=1e-5)
    lengths = np.linalg.norm(found, axis=1)
    assert lengths.min() > 0.9 * min(lengths[0], lengths[-1])  # a line would pass well within


@pytest.mark.parametrize("second", [[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
def test_ends_that_are_alike_opposite_or_nothing(second: list[float]):
    first = np.float32([1, 0])
    found = great_circle(first, np.float32(second), 3)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[[0, -1]], [first, second], atol=0.02)
