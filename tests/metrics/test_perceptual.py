import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from skimage.data import astronaut, cat, coffee

from velatura import catalog
from velatura.metrics.perceptual import PROTOCOL, compare, distances, embedding_distance, perceptual_distance
from velatura.nets.features import Features
from velatura.nets.vgg19 import VGG19

PHOTOGRAPHS = [astronaut()[60:188, 160:288], cat()[80:208, 130:258], coffee()[100:228, 200:328]]


@pytest.fixture(scope="module")
def features():
    return catalog.load("features", {"Features": Features})


def blurred(image, sigma):
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def noisy(image, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def compressed(image, strength):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=round(95 - strength))
    return np.asarray(Image.open(file))


# --- the formula ------------------------------------------------------------------------------------------------------


def test_the_formula():
    """Zhang et al. 2018, equation 1, in NumPy, one place at a time."""
    rng = np.random.default_rng(0)
    ours, theirs = ({"a": rng.normal(size=(2, 5, 3, 4)), "b": rng.normal(size=(2, 7, 2, 2))} for _ in range(2))
    expected = np.zeros(2)
    for name in ours:
        _, _, height, width = ours[name].shape
        for n in range(2):
            for y in range(height):
                for x in range(width):
                    p, q = (maps[name][n, :, y, x] for maps in (ours, theirs))
                    difference = p / np.linalg.norm(p) - q / np.linalg.norm(q)
                    expected[n] += (difference**2).sum() / (height * width) / len(ours)
    found = compare(*({name: torch.tensor(maps) for name, maps in both.items()} for both in (ours, theirs)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    opposite = compare({"a": torch.ones(1, 3, 2, 2)}, {"a": -torch.ones(1, 3, 2, 2)})
    assert float(opposite) == pytest.approx(4)


def test_only_the_layers_that_are_asked_for():
    net = VGG19("conv2_1").requires_grad_(False)
    a, b = torch.rand(2, 1, 3, 32, 32)
    one = distances(a, b, net, ["conv1_1"])
    both = distances(a, b, net, ["conv1_1", "conv1_2"])
    assert not torch.equal(one, both)
    assert torch.equal(distances(a, b, net), distances(a, b, net, net.layers))


def test_it_has_a_finite_gradient_everywhere():
    net = Features().requires_grad_(False)
    image = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    distances(image, torch.full((1, 3, 32, 32), 0.5), net).backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_what_is_refused():
    net = Features()
    with pytest.raises(ValueError, match=r"got shapes \(1, 3, 32, 32\) and \(1, 3, 32, 40\)"):
        perceptual_distance(np.zeros((32, 32, 3)), np.zeros((32, 40, 3)), net)
    with pytest.raises(ValueError, match=r"got shape \(32, 32, 4\); expected \(H, W\), \(H, W, 1\) or \(H, W, 3\)"):
        perceptual_distance(np.zeros((32, 32, 4)), np.zeros((32, 32, 4)), net)


def test_types_and_greys_are_one():
    net = Features().requires_grad_(False)
    grey = np.random.default_rng(0).integers(0, 256, (32, 40), np.uint8)
    other = grey[:, ::-1]
    expected = perceptual_distance(np.stack([grey] * 3, 2), np.stack([other] * 3, 2), net)
    assert expected > 0
    for made in (grey[..., None], grey / 255, grey.astype(np.uint16) * 257):
        assert perceptual_distance(made, other, net) == expected


def test_the_protocol_is_ours():
    assert "not LPIPS" in PROTOCOL


# --- the shipped features ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "strengths"),
    [(blurred, (0.5, 1, 2, 4)), (noisy, (3, 8, 20, 50)), (compressed, (10, 45, 70, 90))],
)
@pytest.mark.parametrize("image", PHOTOGRAPHS, ids=["astronaut", "cat", "coffee"])
def test_it_grows_with_the_damage(features, image, damage, strengths):
    found = [perceptual_distance(damage(image, strength), image, features) for strength in strengths]
    assert found[0] > 0
    assert found == sorted(found)
    assert perceptual_distance(image, image, features) == 0


def test_a_photograph_is_nearer_to_its_copy_than_to_another(features):
    a, b, _ = PHOTOGRAPHS
    assert perceptual_distance(blurred(a, 1), a, features) < 0.5 * perceptual_distance(a, b, features)


@torch.no_grad()
def test_it_ranks_damages_as_the_teachers_do(features):
    """Of images that no training saw, and damages of other kinds than the training's."""
    folder = Path(os.environ.get("VELATURA_DATA", "")).resolve().parent / "pretrained"
    if not folder.is_dir():
        pytest.skip("no teachers beside VELATURA_DATA")
    from velatura.training.recipes.features import read_teachers, spearman

    teachers = read_teachers(folder, features)
    pairs = [
        (image, damage(image, strength))
        for image in PHOTOGRAPHS
        for damage, strengths in ((blurred, (0.5, 1, 2)), (noisy, (3, 8, 20)), (compressed, (30, 60, 85)))
        for strength in strengths
    ]
    ours, theirs = ([perceptual_distance(b, a, extractor) for a, b in pairs] for extractor in (features, teachers))
    assert spearman(np.array(ours), np.array(theirs)) > 0.9


def test_an_embedding_is_of_the_image_as_a_whole():
    """Of means over places: where things are does not matter, what they are does."""

    def features(image, layers):
        assert list(layers) == ["stride16"]
        return {"stride16": image}

    red, blue = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)
    red[:8, :, 0], blue[:, :, 2] = 200, 100
    moved = red[::-1]
    assert embedding_distance(red, moved, features) == pytest.approx(0, abs=1e-6)
    assert embedding_distance(red, blue, features) == pytest.approx(1)
