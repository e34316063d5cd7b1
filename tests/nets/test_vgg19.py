import os
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import cat
from torch import nn

from velatura.nets.vgg19 import VGG19

WIDTHS = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M")


def sequence(until=None):
    """VGG-19 as everybody writes it, one list: torchvision numbers its parts so."""
    parts, before = [], 3
    for width in WIDTHS[:until]:
        if width == "M":
            parts.append(nn.MaxPool2d(2))
        else:
            parts += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
    return nn.Sequential(*parts)


@torch.no_grad()
def outputs(features, x):
    """What each convolution of the list gives, before its ReLU."""
    found = []
    for part in features:
        x = part(x)
        if isinstance(part, nn.Conv2d):
            found.append(x)
    return found


def keras(features):
    """The list's weights in Keras' layout and names."""
    arrays, block, number = {}, 1, 1
    for part in features:
        if isinstance(part, nn.MaxPool2d):
            block, number = block + 1, 1
        elif isinstance(part, nn.Conv2d):
            kernel = part.weight.detach().numpy().transpose(2, 3, 1, 0)
            arrays[f"block{block}_conv{number}.kernel"] = kernel
            arrays[f"block{block}_conv{number}.bias"] = part.bias.detach().numpy()
            number += 1
    return arrays


def caffe_input(image):
    """BGR of 0..255 less the means, written out."""
    return 255 * image.flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)


def test_names():
    assert VGG19.LAYERS[:4] == ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
    assert len(VGG19.LAYERS) == 16
    assert VGG19.LAYERS[-1] == "conv5_4"


@torch.no_grad()
def test_torchvisions_weights():
    torch.manual_seed(0)
    features = sequence()
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    net = VGG19.from_torchvision(state | {"classifier.0.weight": torch.zeros(1)})
    image = torch.rand(1, 3, 32, 37)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = outputs(features, (image - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1))
    for name, found in net(image).items():
        torch.testing.assert_close(found, expected[VGG19.LAYERS.index(name)], atol=1e-5, rtol=1e-4)
    assert not any(p.requires_grad for p in net.parameters())


@torch.no_grad()
def test_keras_weights_as_deep_as_they_go():
    torch.manual_seed(0)
    features = sequence(until=5)
    net = VGG19.from_keras(keras(features))
    assert net.layers == ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
    image = torch.rand(2, 3, 20, 33)
    expected = outputs(features, caffe_input(image))
    for found, wanted in zip(net(image).values(), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)
    activated = net.activated(net(image, ["conv2_2"]))["conv2_2"]
    torch.testing.assert_close(activated, expected[-1].relu(), atol=1e-3, rtol=1e-4)
    with pytest.raises(ValueError, match="got layer 'conv5_4'; expected some of conv1_1, conv1_2, conv2_1, conv2_2"):
        net(image, ["conv5_4"])


def test_nothing_is_computed_beyond_the_deepest_layer():
    net = VGG19("conv2_2")
    net.convolutions["conv2_2"].register_forward_hook(lambda *_: pytest.fail("too deep"))
    assert tuple(net(torch.rand(1, 3, 16, 16), ["conv1_2"])) == ("conv1_2",)


def test_wrong_weights_are_refused_by_name():
    with pytest.raises(ValueError, match=r"got no block1_conv1\.kernel"):
        VGG19.from_keras({})
    with pytest.raises(ValueError, match=r"features\.0\.weight is missing; expected the state dict of torchvision's"):
        VGG19.from_torchvision({})
    arrays = keras(sequence(until=2))
    arrays["block1_conv2.kernel"] = arrays["block1_conv2.kernel"][..., :8]
    with pytest.raises(ValueError, match=r"conv1_2 has shape \(8, 64, 3, 3\); expected \(64, 64, 3, 3\)"):
        VGG19.from_keras(arrays)
    with pytest.raises(ValueError, match="got layer 'conv6_1'"):
        VGG19("conv6_1")


@torch.no_grad()
def test_the_real_weights():
    file = Path(os.environ.get("VELATURA_DATA", "")).resolve().parent / "pretrained/vgg19_conv1_1_to_conv3_4_keras.npz"
    if not file.is_file():
        pytest.skip("no weights of VGG-19 beside VELATURA_DATA")
    arrays = dict(np.load(file))
    features = sequence(until=10)
    convolutions = [part for part in features if isinstance(part, nn.Conv2d)]
    for part, kernel in zip(convolutions, (a for k, a in arrays.items() if k.endswith("kernel")), strict=True):
        part.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
    for part, bias in zip(convolutions, (a for k, a in arrays.items() if k.endswith("bias")), strict=True):
        part.bias.copy_(torch.from_numpy(bias))
    image = torch.from_numpy(cat()[100:164, 150:214].copy()).permute(2, 0, 1)[None] / 255
    expected = outputs(features, caffe_input(image))
    for found, wanted in zip(VGG19.from_keras(arrays)(image).values(), expected, strict=True):
        assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()
