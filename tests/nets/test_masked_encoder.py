import numpy as np
import pytest
import torch
from skimage.data import astronaut
from torch.distributions import Normal, kl_divergence

from velatura.nets.masked_encoder import LIMIT, MaskedEncoder, Posterior, linear_posterior, membrane
from velatura.nets.vae import VAE
from velatura.ops import masks, poisson


def photograph():
    square = astronaut()[:256, 100:356].reshape(64, 4, 64, 4, 3).mean((1, 3)) / 255
    return torch.from_numpy(square).float().permute(2, 0, 1)[None]


def tensor(mask):
    return torch.from_numpy(mask)[None, None]


def test_what_the_hole_holds_is_never_read():
    net, image = MaskedEncoder(8, width=4).eval(), torch.rand(1, 3, 64, 64)
    mask = tensor(masks.ellipse(64, 64, (30, 20), (14, 9)))
    other = torch.where(mask > 0, torch.rand_like(image), image)
    for a, b in zip(net(image, mask), net(other, mask), strict=True):
        assert torch.equal(a, b)


def test_it_sees_mask_and_known_pixels():
    net, image, none = MaskedEncoder(8, width=4), torch.full((1, 3, 64, 64), 0.5), torch.zeros(1, 1, 64, 64)
    some = tensor(masks.centre_square(64, 64))
    # The membrane over a hole in an even image is that image: the mask itself must tell.
    assert not torch.equal(net(image, none).mean, net(image, some).mean)
    bright = image.clone()
    bright[..., 0, 0] = 1
    assert not torch.equal(net(image, some).mean, net(bright, some).mean)


def test_a_mirrored_one_sees_the_far_side_from_its_first_map_on():
    torch.manual_seed(0)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    reached = []
    for mirrored in (False, True):
        net, image = MaskedEncoder(8, width=4, mirrored=mirrored), torch.rand(1, 3, 64, 64, requires_grad=True)
        first = net.look(image, mask)[1][0]
        (slope,) = torch.autograd.grad(first[..., :4].sum(), image)  # of what is made of the far left
        reached.append((slope[..., -8:] != 0).any().item())
        assert (slope[..., :32] == 0).all()  # the hole itself is never read
    assert reached == [False, True]


def test_images_do_not_depend_on_their_neighbours():
    net = MaskedEncoder(8, width=4).eval()
    image, mask = torch.rand(4, 3, 64, 64), (torch.rand(4, 1, 64, 64) < 0.5).float()
    torch.testing.assert_close(net(image, mask).mean[2:3], net(image[2:3], mask[2:3]).mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "channels", "kernel"), [(64, 1, 7), (96, 1, 3), (96, 3, 5)])
def test_sizes_and_kernels(size, channels, kernel):
    net = MaskedEncoder(8, channels, size, 4, kernel)
    found = net(torch.rand(2, channels, size, size), torch.zeros(2, 1, size, size))
    assert found.mean.shape == found.log_variance.shape == (2, 8)


@pytest.mark.parametrize("wrong", [{"size": 72}, {"kernel": 4}])
def test_refuses(wrong):
    with pytest.raises(ValueError, match="expected"):
        MaskedEncoder(**wrong)


def test_everything_masked_is_finite():
    net = MaskedEncoder(8, width=4)
    found = net(torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64))
    assert all(bool(part.isfinite().all()) for part in found)


def test_the_linear_posterior_is_that_of_the_pixels():
    """Woodbury's identity: conditioning the joint normal distribution of latents and known pixels gives the same."""
    rng = np.random.default_rng(3)
    basis, noise = rng.normal(size=(5, 20)), 0.3
    pixels, known = rng.normal(size=(2, 20)), rng.random((2, 20)) < 0.6
    found = linear_posterior(
        *(torch.from_numpy(v).float() for v in (basis, known * pixels, known.astype(float))), noise=noise
    )
    for i in range(2):
        seen = basis[:, known[i]]
        among = np.linalg.inv(seen.T @ seen + noise * np.eye(seen.shape[1]))
        np.testing.assert_allclose(found.mean[i], seen @ among @ pixels[i, known[i]], atol=1e-5)
        left = np.eye(5) - seen @ among @ seen.T
        np.testing.assert_allclose(found.log_variance[i].exp(), np.diag(left), atol=1e-5)


def test_with_a_basis_it_starts_from_the_linear_guess_and_reads_no_hole():
    net = VAE(6, 3, 64, 4, basis=16)
    net.begin(torch.rand(20, 3, 64, 64))
    image = torch.rand(1, 3, 64, 64)
    mask = tensor(masks.ellipse(64, 64, (30, 20), (14, 9)))
    other = torch.where(mask > 0, torch.rand_like(image), image)
    first, second = (net.encoder(each, mask) for each in (image, other))
    assert torch.equal(first.mean, second.mean)
    nothing, everything = net.encoder(image, torch.ones_like(mask)), net.encoder(image, torch.zeros_like(mask))
    # Nothing known: the prior. The more is known, the less is open.
    torch.testing.assert_close(nothing.mean, torch.zeros(1, 6), rtol=0, atol=1e-6)
    torch.testing.assert_close(nothing.log_variance, torch.zeros(1, 6), rtol=0, atol=1e-5)
    assert bool((everything.log_variance < first.log_variance).all() and (first.log_variance < 0).all())


def test_the_variance_is_bounded():
    net = MaskedEncoder(8, width=4)
    torch.nn.init.constant_(net.tell.bias, 1e4)
    assert float(net(torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)).log_variance.detach().max()) <= LIMIT


def test_divergence_equals_torch():
    one, two = (Posterior(torch.randn(3, 5), torch.randn(3, 5)) for _ in range(2))
    a, b = (Normal(each.mean, (each.log_variance / 2).exp()) for each in (one, two))
    torch.testing.assert_close(one.divergence(two), kl_divergence(a, b))
    torch.testing.assert_close(one.divergence(), kl_divergence(a, Normal(0.0, 1.0)))


def test_samples_have_the_spread_they_should():
    posterior = Posterior(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]]))
    drawn = posterior.sample(torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)))
    np.testing.assert_allclose(drawn.mean(0), [1, -2], atol=0.06)
    np.testing.assert_allclose(drawn.std(0), [1, np.e], rtol=0.03)


@pytest.mark.parametrize(
    ("mask", "most"),
    [
        (masks.centre_square(64, 64), 0.2),
        (masks.rectangle(64, 64, 0, 0, 32, 64), 0.25),
        ((np.random.default_rng(0).random((64, 64)) < 0.8).astype(np.float32), 0.08),
        (masks.ellipse(64, 64, (30, 20), (12, 6), 0.5), 0.1),
    ],
)
def test_membrane_is_near_the_exact_one(mask, most):
    """In shares of the error that the membrane itself has; `velatura.ops.poisson` is the reference."""
    image, inside = photograph(), mask > 0.5
    exact = poisson.membrane(image[0].numpy(), inside)[:, inside]
    near = membrane(image, tensor(mask))[0].numpy()
    distance = np.sqrt(np.mean((near[:, inside] - exact) ** 2))
    assert distance < most * np.sqrt(np.mean((exact - image[0].numpy()[:, inside]) ** 2))
    np.testing.assert_array_equal(near[:, ~inside], image[0].numpy()[:, ~inside])


def test_the_membranes_gradient_is_that_of_a_linear_map():
    image = torch.rand(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    mask = tensor(masks.centre_square(6, 6)).double()
    assert torch.autograd.gradcheck(lambda x: membrane(x, mask), image)
    membrane(image, mask).sum().backward()
    assert image.grad is not None
    assert float(image.grad[..., 2:4, 2:4].abs().max()) < 1e-12


def test_membrane_of_nothing_known_is_zero():
    assert float(membrane(torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)).abs().max()) < 1e-6
