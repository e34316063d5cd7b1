"""Realism of sets of images, against a second implementation with NumPy and SciPy."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

from velatura.metrics.realism import (
    compare,
    frechet_distance,
    googlenet_features,
    kernel_distance,
    memorised,
    nearest,
    precision_recall,
    velatura_features,
)
from velatura.nets.features import Features
from velatura.nets.googlenet import GoogLeNet


def two_sets(count: int = 60, numbers: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    mixed = rng.normal(size=(numbers, numbers))
    return rng.normal(size=(count, numbers)), rng.normal(size=(count - 7, numbers)) @ mixed * 0.5 + 0.3


def tensors(*sets: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(each) for each in sets]


def frechet_by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    c, d = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(c @ d).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + d - 2 * root))


def kernel_by_loops(a: np.ndarray, b: np.ndarray) -> float:
    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    same = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (a, b)]
    return float(sum(same) - 2 * np.mean([k(x, y) for x in a for y in b]))


def share_inside(points: np.ndarray, others: np.ndarray, k: int) -> float:
    reach = np.sort(cdist(others, others), axis=1)[:, k]
    return float(np.mean([(cdist(p[None], others)[0] <= reach).any() for p in points]))


def test_frechet_distance_is_scipys():
    a, b = two_sets()
    assert frechet_distance(*tensors(a, b)) == pytest.approx(frechet_by_scipy(a, b), rel=1e-6)
    assert frechet_distance(*tensors(a, a)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_fewer_images_than_numbers():
    a, b = two_sets(12, 20)
    # `sqrtm` knows no singular matrix: the eigenvalues of the product instead.
    values = np.linalg.eigvals(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    traces = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + traces - 2 * np.sqrt(np.maximum(values, 0)).sum()
    assert frechet_distance(*tensors(a, b)) == pytest.approx(expected, rel=1e-5)


def test_kernel_distance_is_that_of_loops():
    a, b = two_sets(20)
    assert kernel_distance(*tensors(a, b)) == pytest.approx(kernel_by_loops(a, b))


def test_precision_and_recall_are_scipys():
    a, b = two_sets()
    made, real = tensors(a, b)
    assert precision_recall(made, real) == pytest.approx((share_inside(a, b, 3), share_inside(b, a, 3)))
    assert precision_recall(made, made) == (1.0, 1.0)
    # A model that makes one image well has precision and no recall.
    one = real[:1] + 1e-3 * torch.randn(30, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    precision, recall = precision_recall(one, real)
    assert precision == 1
    assert recall < 0.1


def test_nearest_and_memorised():
    a, b = two_sets()
    made, training = tensors(a, b)
    distance, index = nearest(made, training)
    np.testing.assert_allclose(distance, cdist(a, b).min(1))
    assert index.tolist() == cdist(a, b).argmin(1).tolist()
    copies = training[:20]
    of_copies, of_held = memorised(copies, made, training)
    assert of_copies == 0
    assert of_held > 0.1


def test_compare_prints_the_floor_of_equal_numbers():
    a, b = two_sets()
    made, real = tensors(a, b)
    found = compare(made, real[:30], real[30:])
    assert found.count == 23
    assert found.frechet > found.frechet_floor
    assert found.kernel > found.kernel_floor


def test_wrong_features_are_refused():
    with pytest.raises(ValueError, match="expected \\(n, d\\) and \\(m, d\\)"):
        kernel_distance(torch.zeros(3, 2), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="got 3 images; expected more than 3"):
        precision_recall(torch.zeros(3, 2), torch.zeros(9, 2))


def test_features_of_images():
    torch.manual_seed(0)
    ours, images = Features([4] * 5).eval(), torch.rand(2, 3, 32, 32)
    found = velatura_features(ours, images)
    maps = ours(images, ["stride8", "stride16"])
    assert torch.allclose(found, torch.cat([each.mean((2, 3)) for each in maps.values()], 1), atol=1e-5)
    grey = velatura_features(ours, images[:, :1])
    assert torch.equal(grey, velatura_features(ours, images[:, :1].repeat(1, 3, 1, 1)))
    assert googlenet_features(GoogLeNet().eval(), images[:1, :1]).shape == (1, 1024)
