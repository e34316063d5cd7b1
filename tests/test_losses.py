import math

import numpy as np
import pytest
import torch

from velatura import losses


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 5, 7, generator=generator), torch.rand(2, 3, 5, 7, generator=generator)


def test_pixel_losses(pair):
    a, b = (one.double().numpy() for one in pair)
    assert float(losses.l1(*pair)) == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
    assert float(losses.mse(*pair)) == pytest.approx(((a - b) ** 2).mean(), rel=1e-5)
    assert float(losses.charbonnier(*pair)) == pytest.approx(np.sqrt((a - b) ** 2 + 1e-6).mean(), rel=1e-5)
    assert float(losses.charbonnier(pair[0], pair[0], 0.01)) == pytest.approx(0.01, rel=1e-4)


# --- features ---------------------------------------------------------------------------------------------------------


def extractor(image, layers):
    """Two layers whose every value is known."""
    known = {"double": 2 * image, "red": image[:, :1]}
    return {name: known[name] for name in layers}


def test_content_loss_is_the_weighed_sum_over_layers(pair):
    a, b = (one.double().numpy() for one in pair)
    squares = (a - b) ** 2
    found = losses.content_loss(extractor, *pair, {"double": 0.5, "red": 3.0})
    assert float(found) == pytest.approx(0.5 * 4 * squares.mean() + 3 * squares[:, 0].mean(), rel=1e-5)
    assert float(losses.content_loss(extractor, pair[0], pair[0], {"red": 1.0})) == 0
    with pytest.raises(ValueError, match="got no layers"):
        losses.content_loss(extractor, *pair, {})


def test_content_loss_computes_no_other_layer(pair):
    def one_layer(image, layers):
        assert list(layers) == ["red"]
        return extractor(image, layers)

    losses.content_loss(one_layer, *pair, {"red": 1.0})


def test_content_loss_moves_the_image_and_nothing_else(pair):
    image, target = (one.clone().requires_grad_() for one in pair)
    losses.content_loss(extractor, image, target, {"double": 1.0}).backward()
    assert target.grad is None
    expected = 2 * 4 * (pair[0] - pair[1]) / pair[0].numel()
    torch.testing.assert_close(image.grad, expected)


# --- critics ----------------------------------------------------------------------------------------------------------

LOGITS = np.array([-2.0, 0.3, 5.0])


def test_log_losses():
    logits = torch.tensor(LOGITS)
    real, fake = -np.log(sigmoid(LOGITS)).mean(), -np.log(1 - sigmoid(LOGITS)).mean()
    assert float(losses.adversarial(logits, True)) == pytest.approx(real)
    assert float(losses.adversarial(logits, False)) == pytest.approx(fake)
    assert float(losses.adversarial(logits, True, critic=False)) == pytest.approx(real)
    assert math.isfinite(float(losses.adversarial(torch.tensor([-1e4]), True)))  # log of a sigmoid would not be


def test_hinge_losses():
    logits = torch.tensor(LOGITS)
    assert float(losses.adversarial(logits, True, "hinge")) == pytest.approx((3 + 0.7 + 0) / 3)
    assert float(losses.adversarial(logits, False, "hinge")) == pytest.approx((0 + 1.3 + 6) / 3)
    assert float(losses.adversarial(logits, True, "hinge", critic=False)) == pytest.approx(-LOGITS.mean())


def test_a_generator_wants_its_images_to_look_real():
    with pytest.raises(ValueError, match="got real=False for a generator"):
        losses.adversarial(torch.zeros(1), False, critic=False)


def test_relativistic_losses():
    """ESRGAN, equations 1 and 2, written out."""
    real, fake = np.array([1.0, -0.5, 2.0]), np.array([0.2, -3.0, 0.7])
    real_than_fake, fake_than_real = sigmoid(real - fake.mean()), sigmoid(fake - real.mean())
    critic = -np.log(real_than_fake).mean() - np.log(1 - fake_than_real).mean()
    generator = -np.log(1 - real_than_fake).mean() - np.log(fake_than_real).mean()
    found = losses.relativistic(torch.tensor(real), torch.tensor(fake))
    assert [float(one) for one in found] == pytest.approx([generator, critic])


def test_relativistic_does_not_care_where_zero_is():
    real, fake = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for one, moved in zip(losses.relativistic(real, fake), losses.relativistic(real + 7, fake + 7), strict=True):
        torch.testing.assert_close(one, moved)


# --- smoothness -------------------------------------------------------------------------------------------------------


def test_total_variation(pair):
    a = pair[0].double().numpy()
    expected = np.abs(np.diff(a, axis=2)).mean() + np.abs(np.diff(a, axis=3)).mean()
    assert float(losses.total_variation(pair[0])) == pytest.approx(expected, rel=1e-5)
    assert float(losses.total_variation(torch.full((1, 3, 4, 4), 0.3))) == 0


def test_total_variation_has_a_gradient_where_an_image_is_flat():
    image = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    losses.total_variation(image).backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
