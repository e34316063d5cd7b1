import pytest
import torch
from torch.nn import functional

from velatura.nets.dcgan import Discriminator, Generator, Trunk, pixel_norm


def test_the_papers_generator_is_one_of_these():
    """Figure 1: 100 numbers, 4x4x1024, then 512, 256 and 128 channels, each map twice as large; tanh."""
    net = Generator(100, width=128, kernel=5, form="paper", prior="uniform")
    seen = []
    for layer in net.layers:
        layer.register_forward_hook(lambda layer, _, made: seen.append((type(layer).__name__, tuple(made.shape[1:]))))
    image = net(net.draw(2))
    maps = [shape for name, shape in seen if name in ("Unflatten", "ConvTranspose2d")]
    assert maps == [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (3, 64, 64)]
    assert sum(name == "BatchNorm2d" for name, _ in seen) == 4
    assert bool(((image >= 0) & (image <= 1)).all())


def test_the_papers_discriminator_mirrors_it():
    net = Discriminator(width=128, kernel=5, form="paper")
    convolutions = [layer for layer in net.layers if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.out_channels, layer.stride) for layer in convolutions] == [
        (128, (2, 2)), (256, (2, 2)), (512, (2, 2)), (1024, (2, 2)),
    ]  # fmt: skip
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in net.layers) == 3
    assert net.score.in_features == 4 * 4 * 1024


@pytest.mark.parametrize("form", ["residual", "paper"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize(("size", "channels"), [(64, 3), (96, 1)])
def test_sizes_kernels_and_channels(form, kernel, size, channels):
    generator = Generator(8, channels, size, 4, kernel, form)
    critic = Discriminator(channels, size, 4, kernel, form)
    image = generator(generator.draw(3))
    assert image.shape == (3, channels, size, size)
    assert image.dtype == torch.float32
    assert critic(image).shape == (3,)


@pytest.mark.parametrize("make", [Generator, Discriminator])
@pytest.mark.parametrize("wrong", [{"size": 72}, {"size": 8}, {"kernel": 4}])
def test_refuses(make, wrong):
    with pytest.raises(ValueError, match="expected"):
        make(**wrong)


@pytest.mark.parametrize(("form", "norm"), [("residual", "pixel"), ("residual", "batch"), ("paper", "pixel")])
def test_an_image_does_not_depend_on_its_neighbours(form, norm):
    """In eval: the paper's batch norm takes what it has learned."""
    generator, critic = Generator(16, width=8, form=form, norm=norm), Discriminator(width=8, form=form)
    for _ in range(3):
        critic(generator(generator.draw(8)))
    generator.eval()
    critic.eval()
    z = generator.draw(5)
    many, alone = generator(z), generator(z[3:4])
    torch.testing.assert_close(many[3:4], alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(critic(many)[3:4], critic(alone), rtol=0, atol=1e-5)


def test_priors():
    normal, uniform = Generator(64, width=4), Generator(64, width=4, prior="uniform")
    z, u = (net.draw(500, torch.Generator().manual_seed(0)) for net in (normal, uniform))
    assert float(z.std()) == pytest.approx(1, abs=0.02)
    assert float(u.abs().max()) <= 1
    assert float(u.std()) == pytest.approx(3**-0.5, abs=0.01)
    assert torch.equal(z, normal.draw(500, torch.Generator().manual_seed(0)))


def test_pixel_norm():
    x = 5 * torch.randn(2, 6, 4, 4)
    expected = 6**0.5 * functional.normalize(x, dim=1)
    torch.testing.assert_close(pixel_norm(x), expected)
    assert pixel_norm(x.bfloat16()).dtype == torch.bfloat16


def test_what_a_new_network_makes_is_within_reach():
    """Signals keep their size through all layers, or training begins with a wait."""
    torch.manual_seed(0)
    image = Generator().eval()(torch.randn(8, 128)).detach()
    assert 0.05 < float(image.std()) < 1
    maps = Trunk(3, 48, 3, norm="pixel")(torch.randn(4, 3, 64, 64)).detach()
    assert 0.1 < float(maps.std()) < 10
    assert float(Discriminator()(torch.rand(8, 3, 64, 64)).detach().abs().max()) < 5


def test_a_new_network_makes_no_checkerboard():
    net = Generator(8, width=4)
    blocks = net(net.draw(2)).detach().unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    torch.testing.assert_close(blocks, blocks[..., :1].expand_as(blocks))


def test_every_weight_learns():
    generator, critic = Generator(8, width=4), Discriminator(width=4)
    critic(generator(generator.draw(4))).sum().backward()
    for net in (generator, critic):
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_images_and_logits_stay_float32():
    generator, critic = Generator(8, width=4), Discriminator(width=4)
    with torch.autocast("cpu", torch.bfloat16):
        image = generator(generator.draw(1))
        assert image.dtype == critic(image).dtype == torch.float32
