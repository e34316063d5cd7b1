import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from velatura import InputError, ModelError
from velatura.nets.features import Features
from velatura.nets.style_features import StyleFeatures
from velatura.nets.vgg19 import BLOCKS
from velatura.stylization import (
    Curve,
    Optimization,
    check_layers,
    default_layers,
    load_extractor,
    mixed_grams,
    noise,
    optimize,
    plot,
)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return StyleFeatures(Features((4, 6, 8, 8, 8)).requires_grad_(False))


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(3)
    return torch.rand(1, 3, 40, 48, generator=generator), torch.rand(1, 3, 32, 36, generator=generator) ** 3


def run(net, pair, start=None, **options):
    options = Optimization(**{"steps": 6, **options})
    grams = mixed_grams(net, [pair[1]], [1.0], options.style_layers)
    return optimize(net, pair[0], lambda scale: grams, options, start=start)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_losses_fall(net, pair, optimizer):
    image, curve = run(net, pair, optimizer=optimizer, rate=0.02 if optimizer == "adam" else 1.0)
    assert curve.total[-1] < 0.9 * curve.total[0]
    assert curve.style[-1] < curve.style[0]
    assert curve.content[0] < 1e-6
    assert len(curve.total) == len(curve.sizes) == 6
    assert 0 <= image.min() <= image.max() <= 1
    assert (image - pair[0]).abs().mean() > 0.005


def test_it_is_deterministic(net, pair):
    assert torch.equal(run(net, pair)[0], run(net, pair)[0])
    assert run(net, pair)[1] == run(net, pair)[1]


def test_weights_mean_what_they_say(net, pair):
    _, light = run(net, pair, style_weight=0.1, steps=1)
    _, heavy = run(net, pair, style_weight=10.0, steps=1)
    # From the photograph only style costs, but for the smoothness.
    assert heavy.total[0] - light.total[0] == pytest.approx(9.9 * light.style[0], rel=1e-3)


def test_start_from_noise(net, pair):
    start = noise(40, 48, 7)
    assert torch.equal(start, noise(40, 48, 7))
    assert not torch.equal(start, noise(40, 48, 8))
    _, curve = run(net, pair, start=start)
    assert curve.content[0] > 0.1
    assert curve.total[-1] < curve.total[0]


def test_large_ones_are_made_coarse_to_fine(net, pair):
    content = torch.rand(1, 3, 60, 1100, generator=torch.Generator().manual_seed(0))
    options = Optimization(steps=6)
    asked = []

    def grams_at(scale):
        asked.append(scale)
        return mixed_grams(net, [pair[1]], [1.0], options.style_layers)

    image, curve = optimize(net, content, grams_at, options)
    assert image.shape == content.shape
    # No size is narrower than what the features want.
    assert curve.sizes == [(60, 1100)] * 6
    assert asked == [1.0]
    content = torch.rand(1, 3, 540, 300, generator=torch.Generator().manual_seed(0))
    image, curve = optimize(net, content, grams_at, options)
    assert curve.sizes == [(270, 150)] * 3 + [(540, 300)] * 3
    assert asked[1:] == [0.5, 1.0]


def test_a_picture_can_be_seen_and_the_work_stopped(net, pair):
    seen = []

    def stop(step, image):
        seen.append((step, image.shape))
        if step == 3:
            raise KeyboardInterrupt

    options = Optimization(steps=9)
    grams = mixed_grams(net, [pair[1]], [1.0], options.style_layers)
    with pytest.raises(KeyboardInterrupt):
        optimize(net, pair[0], lambda scale: grams, options, step_done=stop)
    assert seen == [(step, pair[0].shape) for step in (1, 2, 3)]


def test_mixed_grams_are_means(net, pair):
    layers = {"stride2": 1.0}
    one, two = (mixed_grams(net, [image], [1.0], layers)["stride2"] for image in pair)
    mixed = mixed_grams(net, list(pair), [0.25, 0.75], layers)["stride2"]
    torch.testing.assert_close(mixed, 0.25 * one + 0.75 * two)


def test_plot_is_svg():
    curve = Curve(
        [3.0, 2.0, 1.0, 0.5], [0.0, 0.1, 0.2, 0.2], [1.0, 0.6, 0.3, 0.1], [1.0] * 4, [(8, 8)] * 2 + [(16, 16)] * 2
    )
    root = ElementTree.fromstring(plot(curve, "a < b"))
    lines = [one for one in root if one.tag.endswith("polyline")]
    assert len(lines) == 3
    points = [tuple(map(float, point.split(","))) for point in lines[0].attrib["points"].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # less is further down
    assert "a &lt; b" in plot(curve, "a < b")
    assert plot(curve, "").count('stroke="#999"') == 1  # the size changed once
    assert "nan" not in plot(Curve(), "")


# --- extractors -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vgg19():
    """A state dict of torchvision's shapes and random numbers."""
    torch.manual_seed(0)
    state, number, before = {}, 0, 3
    for count, width in BLOCKS:
        for _ in range(count):
            state[f"features.{number}.weight"] = torch.randn(width, before, 3, 3) * (2 / (9 * before)) ** 0.5
            state[f"features.{number}.bias"] = torch.zeros(width)
            number, before = number + 2, width
        number += 1
    return state


def test_vgg19_of_the_users(tmp_path, vgg19, pair):
    torch.save(vgg19 | {"classifier.0.weight": torch.zeros(4, 4)}, tmp_path / "vgg19.pth")
    net = load_extractor(f"vgg19:{tmp_path / 'vgg19.pth'}")
    content, style = default_layers(net)
    assert list(content) == ["conv4_2"]
    assert list(style) == ["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"]
    save_file(vgg19, tmp_path / "vgg19.safetensors")
    same = load_extractor(f"vgg19:{tmp_path / 'vgg19.safetensors'}")
    assert torch.equal(net(pair[0], ["conv5_1"])["conv5_1"], same(pair[0], ["conv5_1"])["conv5_1"])
    image, curve = run(net, pair, steps=2, content_layers=content, style_layers=style)
    assert curve.total[1] < curve.total[0]
    assert image.isfinite().all()


def test_a_shorter_vgg19_has_fewer_layers(tmp_path, vgg19):
    arrays = {}
    for number, name in enumerate(("features.0", "features.2"), 1):
        arrays[f"block1_conv{number}.kernel"] = vgg19[f"{name}.weight"].permute(2, 3, 1, 0).numpy()
        arrays[f"block1_conv{number}.bias"] = vgg19[f"{name}.bias"].numpy()
    np.savez(tmp_path / "short.npz", **arrays)
    net = load_extractor(f"vgg19:{tmp_path / 'short.npz'}")
    assert default_layers(net) == ({"conv1_2": 1.0}, {"conv1_1": 1.0})
    check_layers(net, ["conv1_1"])
    with pytest.raises(InputError, match=re.escape("unknown layer 'conv4_2'; these features have conv1_1, conv1_2")):
        check_layers(net, ["conv4_2"])


def test_files_that_are_no_features(tmp_path, vgg19):
    del vgg19["features.0.weight"]
    torch.save(vgg19, tmp_path / "vgg19.pth")
    for spec, words in {
        f"vgg19:{tmp_path / 'vgg19.pth'}": "features.0.weight is missing",
        f"vgg19:{tmp_path / 'none.pth'}": "no such file",
        f"vgg19:{tmp_path / 'none.npz'}": "no such file",
        str(tmp_path / "none.safetensors"): "no such file",
        "vgg20": "no such file",
    }.items():
        with pytest.raises(ModelError, match=re.escape(words)):
            load_extractor(spec)
