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


# --- style ------------------------------------------------------------------------------------------------------------


class Simple:
    """Two layers whose maps are easily known."""

    def __call__(self, image, layers):
        return {name: {"fine": image, "mean": image.mean(1, keepdim=True) - 0.2}[name] for name in layers}

    def activated(self, maps):
        return {name: found.clamp(min=0) for name, found in maps.items()}


def test_gram_matrix():
    maps = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    flat = maps.double().numpy().reshape(2, 3, -1)
    expected = np.einsum("nap,nbp->nab", flat, flat) / 20
    np.testing.assert_allclose(losses.gram_matrix(maps).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_slope_of_gram_matrices(order):
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=order).requires_grad_()
    assert torch.autograd.gradcheck(losses.gram_matrix, (maps,))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_slopes_of_both_losses_together(order, pair):
    """Their derivatives are written by hand."""
    net, layers, pair = Simple(), {"fine": 1.0}, [one.double() for one in pair]
    loss = losses.StyleLoss(net, pair[0], losses.style_grams(net, pair[1], layers), {"mean": 1.0}, layers)
    image = torch.rand(2, 3, 5, 7, dtype=torch.float64).contiguous(memory_format=order).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x), (image,))


def test_gram_matrices_of_two_sizes_compare(pair):
    image = pair[0]
    torch.testing.assert_close(losses.gram_matrix(torch.cat([image, image], 2)), losses.gram_matrix(image))


def test_style_loss_by_hand(pair):
    content, style = pair
    image = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(5))
    net, layers = Simple(), {"fine": 3.0, "mean": 1.0}
    found = losses.StyleLoss(net, content, losses.style_grams(net, style, layers), {"mean": 2.0}, layers, 0.1)(image)

    def maps(x):
        x = x.double().numpy()
        return {"fine": x, "mean": np.maximum(x.mean(1, keepdims=True) - 0.2, 0)}

    def gram(x):
        return np.einsum("nahw,nbhw->nab", x, x) / 35

    c, s, x = maps(content), maps(style), maps(image)
    unit = c["mean"].var((2, 3)).mean(1) + 0.1 * (c["mean"] ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(found[0], 2 * ((x["mean"] - c["mean"]) ** 2).mean((1, 2, 3)) / unit, rtol=1e-4)
    expected = 0
    for name, weight in layers.items():
        squares = [((gram(one[name]) - gram(s[name])) ** 2).sum((1, 2)) for one in (x, c)]
        expected += weight / 4 * squares[0] / (squares[1] + 0.1 * (gram(s[name]) ** 2).sum((1, 2)))
    np.testing.assert_allclose(found[1], expected, rtol=1e-4)


def test_style_loss_of_a_pair_that_is_one_image(pair):
    """Content = style, and an image without anything in it: finite, and 0 for the image itself."""
    net, layers = Simple(), {"fine": 1.0}
    for content in (pair[0], torch.zeros(1, 3, 4, 4)):
        loss = losses.StyleLoss(net, content, losses.style_grams(net, content, layers), {"mean": 1.0}, layers)
        lost, lacking = loss(content)
        assert lost.abs().max() == 0
        assert lacking.isfinite().all()
        assert all(value.isfinite().all() for value in loss(content * 0.5 + 0.1))


def test_style_loss_needs_layers(pair):
    with pytest.raises(ValueError, match="at least one"):
        losses.StyleLoss(Simple(), pair[0], {}, {"mean": 1.0}, {})


# --- frequencies ------------------------------------------------------------------------------------------------------


def test_spectral_is_the_squared_logarithm_of_the_ratio_of_powers():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 3, 16, 12, generator=generator)
    targets = 0.5 + (images - 0.5) / 2  # a quarter of the power of every frequency but that of the mean
    powers = losses.spectral(images, targets)
    assert float(losses.spectral(targets, images)) == 0  # too weak costs nothing
    share = 1 - 1 / (16 * 7)  # of the frequencies: the mean's is left out
    assert float(powers) == pytest.approx(share * math.log(4) ** 2, rel=1e-3)
    assert float(losses.spectral(images, images.flip(0).roll(3, -1))) == pytest.approx(0, abs=1e-9)


def test_spectral_counts_the_power_of_a_wave_and_nothing_that_no_eye_sees():
    column = torch.arange(16) / 16
    wave = torch.cos(2 * math.pi * 3 * column).expand(1, 1, 12, 16)  # power (amplitude / 2)^2 at one of 12 x 9 places
    flat = torch.full_like(wave, 0.5)
    expected = math.log(0.05**2 / losses.UNSEEN + 1) ** 2 / (12 * 9)
    assert float(losses.spectral(flat + 0.1 * wave, flat)) == pytest.approx(expected, rel=1e-3)
    assert float(losses.spectral(flat + 1e-5 * wave, flat)) < 1e-6


def test_spectral_takes_a_grid_away_but_nothing_that_is_there():
    generator = torch.Generator().manual_seed(2)
    coarse = torch.nn.functional.interpolate(torch.rand(8, 1, 4, 4, generator=generator), (16, 16), mode="bicubic")
    grid = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8)
    strength = torch.tensor(0.1, requires_grad=True)
    optimizer = torch.optim.Adam([strength], 0.01)
    for _ in range(60):
        loss = losses.spectral(coarse + strength * grid, coarse)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(float(strength.detach())) < 0.01
    same = coarse.clone().requires_grad_()
    losses.spectral(same, coarse).backward()
    assert not same.grad.any()


@pytest.mark.parametrize("start", [0.2, 3.0])
def test_an_energy_score_brings_draws_to_the_spread_of_photographs(start: float):
    generator = torch.Generator().manual_seed(4)
    mean, spread = (torch.tensor(value, requires_grad=True) for value in (1.0, start))
    optimizer = torch.optim.Adam([mean, spread], 0.03)
    for _ in range(250):
        one, other, real = torch.randn(3, 2000, 2, generator=generator)
        with torch.no_grad():
            against = mean + spread * other
        loss = losses.energy_score(mean + spread * one, against, 0.5 * real - 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(mean.detach()) == pytest.approx(-1, abs=0.1)
    assert float(spread.detach()) == pytest.approx(0.5, abs=0.05)


def test_an_energy_score_of_equal_draws_has_a_gradient_and_none_by_the_others():
    one, other, real = (torch.zeros(2, 3, requires_grad=True) for _ in range(3))
    losses.energy_score(one, other, real + 1).backward()
    assert one.grad.isfinite().all()
    assert (one.grad < 0).all()
    assert other.grad is None
    assert real.grad is None
