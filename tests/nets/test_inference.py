import pytest
import torch
from torch import nn
from upscalers import KINDS, make

from velatura.nets.inference import before_shuffle, for_inference
from velatura.nets.rows import in_bands
from velatura.nets.srresnet import SRResNet


def convolutions(network):
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_in_float32_nothing_but_the_rounding_changes(kind):
    network, image = make(kind).double(), torch.rand(1, 3, 12, 16, dtype=torch.float64)
    expected = network(image)
    (done,) = in_bands(for_inference(network), [(image, True)])
    torch.testing.assert_close(done, expected, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_in_half_precision_it_stays_near(kind):
    network, image = make(kind), torch.rand(1, 3, 12, 16)
    expected = network(image)
    (done,) = in_bands(for_inference(network, torch.bfloat16), [(image, True)])
    assert done.dtype == torch.float32
    assert 0 < (done - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_the_network_that_was_given_stays_as_it_is(kind):
    network, image = make(kind), torch.rand(1, 3, 12, 16)
    expected, layers = network(image), [type(module) for module in network.modules()]
    for_inference(network, torch.bfloat16)
    assert [type(module) for module in network.modules()] == layers
    torch.testing.assert_close(network(image), expected, atol=0, rtol=0)


def test_convolutions_are_halved_but_those_that_must_not_be():
    network = for_inference(make("srresnet"), torch.bfloat16)
    assert {module.weight.dtype for module in convolutions(network).values()} == {torch.bfloat16}
    assert network.enlarge.kernels.dtype == torch.float32
    whole = for_inference(make("srresnet-norm"), torch.bfloat16)
    kinds = {name: module.weight.dtype for name, module in convolutions(whole).items()}
    kept = {name for name, kind in kinds.items() if kind == torch.float32}
    assert kept
    assert all(name.startswith("tail") for name in kept)  # the image itself must not be rounded


def test_layers_are_channels_last_and_slopes_are_numbers():
    network = for_inference(make("srresnet"), torch.bfloat16)
    assert not any(isinstance(module, nn.PReLU) for module in network.modules())
    slopes = [module.negative_slope for module in network.modules() if isinstance(module, nn.LeakyReLU)]
    assert len(slopes) == len([m for m in SRResNet(**KINDS["srresnet"][1]).modules() if isinstance(m, nn.PReLU)])
    weight = network.merge[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    # One slope per channel stays what it is.
    assert any(isinstance(module, nn.PReLU) for module in for_inference(make("srvgg")).modules())


def test_without_half_precision_all_stays_float32():
    assert {p.dtype for p in for_inference(make("rrdb")).parameters()} == {torch.float32}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("factor", "size"), [(2, 9), (2, 3), (2, 1), (3, 5), (4, 9)])
@torch.inference_mode()
def test_a_convolution_before_the_shuffle_is_the_one_behind(factor, size, bias):
    torch.manual_seed(0)
    behind = nn.Conv2d(3, 2, size, padding=size // 2, bias=bias).double()
    shuffle, x = nn.PixelShuffle(factor), torch.randn(2, 3 * factor**2, 5, 6, dtype=torch.float64)
    before = before_shuffle(behind, factor)
    torch.testing.assert_close(shuffle(before(x)), behind(shuffle(x)))
    assert (before.bias is not None) == bias
