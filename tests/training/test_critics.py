import pytest
import torch
from torch import nn

from velatura.errors import InputError
from velatura.training.critics import AdversarialConfig, ProjectedCritic, adam, augment, frozen, r1


def test_a_projected_critic_looks_through_our_features_alone():
    with pytest.raises(InputError, match="not Identity's"):
        ProjectedCritic(nn.Identity())


def test_r1_of_several_images_is_the_sum_of_their_squared_slopes():
    images = [torch.rand(3, 1, 2, 2), torch.rand(3, 1, 4, 4), torch.rand(3, 1, 1, 1)]
    # The last is not looked at.
    found = r1(lambda a, b, c: (2 * a).sum() + (b**2).sum(), images)
    expected = 4 * 4 + (4 * images[1].square()).sum((1, 2, 3)).mean()
    torch.testing.assert_close(found, expected)
    assert not images[0].requires_grad


def test_frozen_ends_with_an_error_too():
    layer = nn.Linear(1, 1)

    def fail() -> None:
        with frozen(layer):
            assert not layer.weight.requires_grad
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert layer.weight.requires_grad


def test_augmenting_moves_by_whole_pixels_and_cuts_a_quarter():
    torch.manual_seed(0)
    image = torch.full((64, 1, 32, 32), 0.5)
    changed = augment(image)
    black = (changed == 0).float().mean((1, 2, 3))
    assert float(black.max()) < 0.25 + 2 * 0.125 + 0.02
    assert 0.1 < float(black.mean()) < 0.35
    left = changed[changed != 0]
    assert float(left.min()) >= 0.25
    assert float(left.max()) <= 0.75
    assert all(len(one[one != 0].unique()) <= 2 for one in changed)


def test_augmenting_has_a_gradient_and_follows_the_seed():
    image = torch.rand(4, 3, 32, 32, requires_grad=True)
    torch.manual_seed(1)
    one = augment(image)
    torch.manual_seed(1)
    assert torch.equal(one, augment(image))
    one.sum().backward()
    assert all(float(gradient.abs().sum()) > 0 for gradient in image.grad)


def test_without_tones_every_pixel_stays_or_is_black():
    torch.manual_seed(0)
    image = 0.2 + torch.rand(6, 3, 16, 16)
    changed = augment(image, tones=False)
    assert all(
        set(after[after > 0].tolist()) <= set(one.flatten().tolist()) for one, after in zip(image, changed, strict=True)
    )
    assert (changed == 0).any()


def test_each_discriminator_has_its_rate_and_what_stands_still_is_left_out():
    still = nn.Linear(2, 2)
    still.bias.requires_grad_(False)
    config = AdversarialConfig(learning_rate=1e-3, critic_rate=2e-3, projected_rate=3e-3)
    networks = {"generator": still, "discriminator": nn.Linear(2, 1), "projected": nn.Linear(2, 1)}
    found = adam(config, networks, second_decay=0.9)
    assert [each.param_groups[0]["betas"] for each in found.values()] == [(0.0, 0.9)] * 3
    assert [each.param_groups[0]["lr"] for each in found.values()] == [1e-3, 2e-3, 3e-3]
    assert [len(each.param_groups[0]["params"]) for each in found.values()] == [1, 2, 2]
