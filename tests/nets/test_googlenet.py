import os
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import cat, coffee
from skimage.transform import resize
from torch import nn
from torch.nn import functional

from velatura.nets import googlenet
from velatura.nets.googlenet import GoogLeNet

SIZES = {  # table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


def random_weights(seed=0):
    """Arrays of Caffe's names and shapes, He-sized."""
    rng = np.random.default_rng(seed)
    shapes = {"conv1/7x7_s2": (64, 3, 7), "conv2/3x3_reduce": (64, 64, 1), "conv2/3x3": (192, 64, 3)}
    for block, (before, one, reduce3, three, reduce5, five, pool) in SIZES.items():
        name = f"inception_{block}"
        shapes |= {
            f"{name}/1x1": (one, before, 1),
            f"{name}/3x3_reduce": (reduce3, before, 1),
            f"{name}/3x3": (three, reduce3, 3),
            f"{name}/5x5_reduce": (reduce5, before, 1),
            f"{name}/5x5": (five, reduce5, 5),
            f"{name}/pool_proj": (pool, before, 1),
        }
    arrays = {"loss3/classifier.weight": rng.normal(0, 0.03, (1000, 1024)).astype(np.float16)}
    arrays["loss3/classifier.bias"] = rng.normal(0, 0.1, 1000).astype(np.float32)
    for key, (out, before, side) in shapes.items():
        deviation = (2 / (before * side * side)) ** 0.5
        arrays[f"{key}.weight"] = rng.normal(0, deviation, (out, before, side, side)).astype(np.float16)
        arrays[f"{key}.bias"] = rng.normal(0, 0.1, out).astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def arrays():
    return random_weights()


@torch.no_grad()
def reference(arrays, image):
    """The whole network as the Caffe file lists it: plain functions, torch's own local response norm."""
    norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)

    def convolve(x, key, **options):
        weight, bias = (torch.from_numpy(arrays[f"{key}.{kind}"]).float() for kind in ("weight", "bias"))
        return functional.conv2d(x, weight, bias, **options)

    def pool(x):
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    x = 255 * image.flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    x = norm(pool(convolve(x, "conv1/7x7_s2", stride=2, padding=3).relu()))
    x = pool(norm(convolve(convolve(x, "conv2/3x3_reduce").relu(), "conv2/3x3", padding=1).relu()))
    found = {}
    for block in SIZES:
        name = f"inception_{block}"
        branches = [
            convolve(x, f"{name}/1x1"),
            convolve(convolve(x, f"{name}/3x3_reduce").relu(), f"{name}/3x3", padding=1),
            convolve(convolve(x, f"{name}/5x5_reduce").relu(), f"{name}/5x5", padding=2),
            convolve(functional.max_pool2d(x, 3, 1, padding=1), f"{name}/pool_proj"),
        ]
        found[name] = torch.cat(branches, 1)
        x = found[name].relu()
        x = pool(x) if block in ("3b", "4e") else x
    weight, bias = (torch.from_numpy(arrays[f"loss3/classifier.{kind}"]).float() for kind in ("weight", "bias"))
    return found, functional.linear(x.mean((2, 3)), weight, bias)


def close(found, wanted):
    return float((found - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (67, 90)])
def test_it_is_the_network_of_the_file(arrays, size):
    image = torch.rand(1, 3, *size)
    net = GoogLeNet.from_caffe(arrays)
    expected, logits = reference(arrays, image)
    maps = net(image)
    assert tuple(maps) == GoogLeNet.LAYERS == tuple(expected)
    assert all(close(maps[name], expected[name]) for name in maps)
    assert close(net.logits(image), logits)
    assert close(net.activated(maps)["inception_3b"], expected["inception_3b"].relu())


@torch.no_grad()
def test_the_local_response_norm_is_torchs():
    x = 300 * torch.rand(1, 9, 4, 5)
    expected = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)(x)
    torch.testing.assert_close(googlenet._normalized(x), expected)
    assert googlenet._normalized(x.bfloat16()).dtype == torch.bfloat16


def test_what_is_refused(arrays):
    with pytest.raises(ValueError, match=r"inception_4c/5x5\.bias is missing; expected Caffe's bvlc_googlenet"):
        GoogLeNet.from_caffe({key: value for key, value in arrays.items() if key != "inception_4c/5x5.bias"})
    with pytest.raises(ValueError, match=r"conv2/3x3\.bias has shape \(3,\); expected \(192,\)"):
        GoogLeNet.from_caffe(arrays | {"conv2/3x3.bias": np.zeros(3)})
    with pytest.raises(ValueError, match="got layer 'stride8'; expected some of inception_3a"):
        GoogLeNet()(torch.rand(1, 3, 32, 32), ["stride8"])


def test_nothing_is_computed_beyond_the_deepest_layer():
    net = GoogLeNet()
    net.blocks["inception_3b"].register_forward_hook(lambda *_: pytest.fail("too deep"))
    assert tuple(net(torch.rand(1, 3, 32, 32), ["inception_3a"])) == ("inception_3a",)


@torch.no_grad()
def test_the_real_weights_know_a_cat_and_a_cup():
    file = Path(os.environ.get("VELATURA_DATA", "")).resolve().parent / "pretrained/bvlc_googlenet_fp16.npz"
    if not file.is_file():
        pytest.skip("no weights of GoogLeNet beside VELATURA_DATA")
    net = GoogLeNet.from_caffe(dict(np.load(file)))
    images = [torch.from_numpy(resize(image, (224, 224), anti_aliasing=True)) for image in (cat(), coffee())]
    classes = net.logits(torch.stack(images).permute(0, 3, 1, 2).float()).argmax(1).tolist()
    assert classes[0] in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
    assert classes[1] == 967  # espresso
