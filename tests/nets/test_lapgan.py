"""LAPGAN: levels that stand for themselves, classes, starts of two kinds."""

import numpy as np
import pytest
import torch

from velatura.nets.lapgan import LAPGAN, LAPGANDiscriminator, enlarge, pyramid
from velatura.ops import pyramid as plain


def small(**arguments) -> LAPGAN:
    torch.manual_seed(1)
    return LAPGAN(**{"latent": 8, "size": 32, "width": 4, "start_width": 4} | arguments).eval()


def test_halving_and_doubling_are_those_of_ops():
    image = torch.rand(2, 3, 16, 16)
    (small_one, _) = pyramid(image, 8)
    np.testing.assert_allclose(small_one.numpy(), plain.halve(image.numpy()), atol=1e-6)
    np.testing.assert_allclose(enlarge(small_one).numpy(), plain.double(small_one.numpy(), 16, 16), atol=1e-6)


def test_levels_are_made_on_the_level_before_or_on_what_is_given():
    net = small()
    z = net.draw(2, torch.Generator().manual_seed(1))
    images = net(z).images
    assert [image.shape[-1] for image in images] == [8, 16, 32]
    again = net(z, given=images[:-1]).images
    assert torch.equal(again[-1], images[-1])
    other = net(z, given=(images[0] + 0.5,)).images
    assert torch.equal(other[0], images[0])  # a GAN's start sees no image
    assert not torch.allclose(other[1], images[1])
    assert torch.equal(net.sample(z, coarse=images[0]), images[-1])


def test_a_coarse_image_has_many_draws_that_keep_its_colours():
    net = small()
    coarse = torch.rand(1, 3, 8, 8)
    made = net.sample(net.draw(3, torch.Generator().manual_seed(1)), coarse=coarse.expand(3, -1, -1, -1))
    assert (made[0] - made[1]).abs().max() > 1e-4
    # At first a level is hardly more than the enlarged image.
    assert (pyramid(made, 8)[0] - coarse).abs().mean() < 0.2


def test_an_image_does_not_depend_on_its_neighbours_in_eval():
    net = small(classes=["a", "b"])
    z, label = net.draw(4, torch.Generator().manual_seed(1)), torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(net.sample(z, label)[2:3], net.sample(z[2:3], label[2:3]), atol=1e-5, rtol=0)


def test_classes_change_the_image_and_are_asked_for():
    net = small(classes=["a", "b"])
    z = net.draw(1, torch.Generator().manual_seed(1))
    assert not torch.allclose(net.sample(z, torch.tensor([0])), net.sample(z, torch.tensor([1])))
    with pytest.raises(ValueError, match="expected a number below 2"):
        net.sample(z)
    assert small().draw_classes(3) is None
    net.shares.copy_(torch.tensor([0.0, 1.0]))
    assert net.draw_classes(5).tolist() == [1] * 5


def test_a_vae_start_encodes_what_it_is_given():
    net = small(start_kind="vae")
    z = net.draw(2, torch.Generator().manual_seed(1))
    assert net(z).posterior is None
    coarse = torch.rand(2, 3, 8, 8)
    images, posterior = net(z, given=(coarse,))
    assert posterior.mean.shape == (2, 8)
    assert not torch.equal(images[0], net(z).images[0])
    images[0].sum().backward()
    assert net.start.tell.weight.grad.abs().sum() > 0


def test_levels_share_no_gradient_in_training():
    net = small().train()
    given = pyramid(torch.rand(2, 3, 32, 32), 8)[:-1]
    images = net(net.draw(2), given=given).images
    images[-1].sum().backward()
    assert all(p.grad is None for p in net.start.parameters())
    assert all(p.grad is None for p in net.levels[0].parameters())
    assert any(p.grad is not None for p in net.levels[1].parameters())


@pytest.mark.parametrize("judges_start", [True, False])
def test_a_discriminator_sees_image_and_coarse_image(judges_start: bool):
    torch.manual_seed(1)
    net = LAPGANDiscriminator(size=16, width=4, classes=2, judges_start=judges_start)
    images, label = pyramid(torch.rand(2, 3, 16, 16), 8), torch.tensor([0, 1])
    logits = net(images, label)
    assert len(logits) == 1 + judges_start
    other = net([1 - images[0], images[1]], label)
    assert not torch.allclose(other[-1], logits[-1])
    pairs = [images[0], torch.cat([images[1], enlarge(images[0])], dim=1)]
    assert all(torch.equal(a, b) for a, b in zip(net(pairs, label), logits, strict=True))
    with torch.no_grad():
        net.judges[-1].name.weight[0] = 1.0
    changed = net(images, label)[-1] - logits[-1]
    assert changed[0] != 0
    assert changed[1] == 0


@pytest.mark.parametrize(("start", "size"), [(8, 8), (8, 48), (6, 24), (0, 8)])
def test_sizes_that_are_no_pyramid_are_refused(start: int, size: int):
    with pytest.raises(ValueError, match="expected a multiple of 4"):
        LAPGAN(start=start, size=size)


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_a_start_begins_with_the_means_and_the_spread_of_its_classes(kind: str):
    random = torch.Generator().manual_seed(2)
    label = torch.arange(400) % 2
    means = torch.tensor([[0.2, 0.4, 0.6], [0.7, 0.5, 0.3]])[label][:, :, None, None]
    spread = 0.1 * torch.randn(400, 8, generator=random) @ torch.randn(8, 192, generator=random) / 8**0.5
    images = means + spread.view(400, 3, 8, 8)
    net = small(classes=["a", "b"], basis=True, start_kind=kind)
    net.begin(images, label)
    made = net(net.draw(2000, random), torch.arange(2000) % 2).images[0].detach()
    for number in (0, 1):
        ours, theirs = made[number::2].flatten(1), images[number::2].flatten(1)
        torch.testing.assert_close(ours.mean(0), theirs.mean(0), atol=0.03, rtol=0)
        torch.testing.assert_close(ours.std(0).mean(), theirs.std(0).mean(), atol=0.01, rtol=0)


def test_a_start_smaller_than_its_latents_has_what_components_there_are():
    net = small(start=4, latent=64, basis=True)
    net.begin(torch.rand(70, 3, 4, 4))
    assert net.start.basis[:48].abs().amax((1, 2, 3)).gt(0).all()
    assert net.start.basis[48:].eq(0).all()
