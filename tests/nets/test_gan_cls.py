"""Text-to-image networks: what a picture depends on, and what the discriminator judges."""

from __future__ import annotations

import pytest
import torch

from velatura.nets.gan_cls import MatchingDiscriminator, StyleEncoder, TextToImage

TEXT = {"vocabulary": ["a", "blue", "flower", "red"], "embedding": 8, "width": 8, "size": 16}


@pytest.fixture(scope="module")
def net() -> TextToImage:
    torch.manual_seed(0)
    return TextToImage(TEXT, noise=12, condensed=8, width=4, style_width=4).eval().requires_grad_(False)


def test_pictures_depend_on_noise_and_on_the_sentence(net: TextToImage):
    z, said = net.draw(2, torch.Generator().manual_seed(1)), net.encode(["a red flower", "a blue flower"])
    first, other_noise = net(z, said[:1].expand(2, -1))
    other_text = net(z[:1], said[1:])[0]
    assert first.shape == (3, 64, 64)
    assert (first - other_noise).abs().max() > 1e-3
    assert (first - other_text).abs().max() > 1e-4


def test_a_picture_does_not_depend_on_its_neighbours(net: TextToImage):
    z, said = net.draw(3, torch.Generator().manual_seed(2)), net.encode(["red", "blue", "a flower"])
    assert torch.allclose(net(z, said)[1:2], net(z[1:2], said[1:2]), atol=1e-5)


def test_without_a_style_encoder_there_is_none():
    net = TextToImage(TEXT, noise=12, condensed=8, width=4)
    assert net.style is None
    assert not any(name.startswith("style") for name in net.state_dict())


def test_the_discriminator_judges_each_sentence_with_the_same_picture():
    torch.manual_seed(0)
    net = MatchingDiscriminator(16, condensed=8, width=4).eval()
    image, right, wrong = torch.rand(2, 3, 64, 64), torch.randn(2, 16), torch.randn(2, 16)
    both = net(image, right, wrong)
    assert torch.equal(both[0], net(image, right)[0])
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_the_style_encoder_has_a_gradient_to_the_picture():
    net, image = StyleEncoder(6, width=4), torch.rand(2, 3, 64, 64, requires_grad=True)
    net(image).square().sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_noise_begins_as_what_no_sentence_says():
    """Two kinds of pictures, and something of them that differs: the noise makes the latter, about the common mean."""
    random = torch.Generator().manual_seed(3)
    kind = torch.arange(60) % 2
    light = torch.randn(60, generator=random)
    pictures = 0.5 + 0.2 * (2 * kind - 1).view(-1, 1, 1, 1) * torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    pictures = (pictures + 0.05 * light.view(-1, 1, 1, 1) * torch.tensor([0, 0, 1.0]).view(3, 1, 1)).expand(
        -1, -1, 64, 64
    )
    net = TextToImage(TEXT, noise=12, condensed=8, width=4, basis=4).eval()
    net.begin(pictures, kind)
    z, said = net.draw(400, random), net.encode(["red"]).expand(400, -1)
    made = net(z, said).detach().mean((2, 3))
    torch.testing.assert_close(made.mean(0), torch.tensor([0.5, 0.5, 0.5]), atol=0.01, rtol=0)
    torch.testing.assert_close(made.std(0), torch.tensor([0, 0, 0.05]), atol=0.01, rtol=0)
    assert torch.equal(made, net(z, net.encode(["blue flower"]).expand(400, -1)).detach().mean((2, 3)))  # not yet
