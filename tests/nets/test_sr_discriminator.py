import pytest
import torch

from velatura.nets.sr_discriminator import Discriminator, UNetDiscriminator


def spectral_norms(net, side):
    """Of the weights of all convolutions that have the norm, once they have seen enough steps of the power method."""
    for _ in range(60):
        net.train()(torch.rand(1, 3, side, side))
    return [
        float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        for layer in net.modules()
        if isinstance(layer, torch.nn.Conv2d) and torch.nn.utils.parametrize.is_parametrized(layer)
    ]


def test_the_papers_discriminator_is_one_of_these():
    """SRGAN figure 4: k3n64s1, n64s2, n128s1 ... n512s2, dense 1024, dense 1."""
    net = Discriminator(64, 1024, window=6, norm="batch")
    convolutions = [layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)]
    drawn = [(layer.out_channels, layer.stride[0]) for layer in convolutions[:8]]
    assert drawn == [(64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1), (512, 2)]
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in net.modules()) == 7
    features = net.layers[:-3](torch.rand(2, 3, 96, 96))
    dense = convolutions[8]
    expected = features.flatten(1) @ dense.weight.flatten(1).T + dense.bias
    torch.testing.assert_close(dense(features).flatten(1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("net", "count"), [(Discriminator(4, 8), 7), (UNetDiscriminator(4), 8)])
def test_no_layer_stretches(net, count):
    norms = spectral_norms(net, 32)
    assert len(norms) == count
    assert norms == pytest.approx([1.0] * count, rel=0.02)


def test_places_are_judged_by_themselves():
    net = Discriminator(4, 8).eval()
    image = torch.rand(1, 3, 256, 64)
    other = image.clone()
    other[:, :, :16] = 1 - other[:, :, :16]
    changed = (net(image) != net(other)).squeeze()
    assert changed[0].all()
    assert not changed[8:].any()


def test_every_pixel_is_judged():
    net, image = UNetDiscriminator(4).eval(), torch.rand(1, 3, 64, 64)
    other = image.clone()
    other[:, :, 0, 0] = 1 - other[:, :, 0, 0]
    changed = (net(image) != net(other)).squeeze()
    assert changed[0, 0]
    assert not changed[63, 63]


@pytest.mark.parametrize("net", [Discriminator(8, 16), Discriminator(8, 16, norm="batch"), UNetDiscriminator(8)])
def test_it_learns_to_tell_noise_from_stripes(net):
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(0)
    stripes = (torch.arange(32) % 2).float().expand(8, 3, 32, 32)
    for _ in range(30):
        logits = net(torch.cat([stripes, torch.rand(8, 3, 32, 32, generator=rng)]))
        real, fake = logits[:8], logits[8:]
        loss = torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(real.detach().mean()) > float(fake.detach().mean()) + 1


def test_logits_stay_float32():
    for net in (Discriminator(4, 8), UNetDiscriminator(4)):
        with torch.autocast("cpu", torch.bfloat16):
            assert net(torch.rand(1, 3, 32, 32)).dtype == torch.float32
