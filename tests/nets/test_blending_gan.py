import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.linalg import sqrtm
from scipy.sparse.linalg import spsolve

from velatura.nets.blending_gan import BlendingGAN, Critic, _membrane, _roots, seam_prior
from velatura.ops.masks import centre_square, soften


@pytest.fixture
def square():
    return torch.from_numpy(centre_square(64, 64))[None, None]


def smooth_images(n, seed=0):
    """Images like photographs in that neighbours are alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0.05, 0.95)


def test_the_default_fits_its_place():
    net = BlendingGAN()
    weights = sum(p.numel() for p in net.parameters())
    assert weights <= 1_900_000
    assert 2 * weights < 4 * 2**20  # fp16


def test_background_stays_bit_for_bit(square):
    net = BlendingGAN(width=8, bottleneck=16)
    with torch.no_grad():
        net.leave.weight.normal_()
    composite = torch.rand(2, 3, 64, 64)
    blended = net(composite, square.expand(2, -1, -1, -1))
    outside = (square == 0).expand_as(composite)
    assert torch.equal(blended[outside], composite[outside])
    assert not torch.equal(blended, composite)


def test_without_prior_it_begins_as_the_identity(square):
    composite = torch.rand(2, 3, 64, 64)
    assert torch.equal(
        BlendingGAN(width=8, bottleneck=16, prior=False)(composite, square.expand(2, -1, -1, -1)), composite
    )


def test_with_prior_it_begins_as_the_prior(square):
    composite = smooth_images(2)
    mask = square.expand(2, -1, -1, -1)
    expected = seam_prior(composite, mask).guess(composite, mask)
    torch.testing.assert_close(BlendingGAN(width=8, bottleneck=16)(composite, mask), expected)


@pytest.mark.parametrize("prior", [True, False])
def test_the_map_of_colours_says_what_the_network_does(square, prior):
    torch.manual_seed(0)
    net = BlendingGAN(width=8, bottleneck=16, prior=prior)
    torch.nn.init.normal_(net.leave.weight, std=0.02)
    # Colours far from black and white: the network clips its guess, the map does not.
    composite = 0.35 + 0.3 * smooth_images(2)
    mask = square.expand(2, -1, -1, -1)
    with torch.no_grad():
        maps = net.colour_map(composite, mask)
        changed = composite + (maps[:, :9].unflatten(1, (3, 3)) * composite[:, None]).sum(2) + maps[:, 9:]
        torch.testing.assert_close(changed * mask, net(composite, mask) * mask, atol=1e-4, rtol=0)


def test_a_finer_map_undoes_light_better():
    """At 256x256 the pixels on the two sides of the seam are nearer than at 64x64."""
    target = torch.nn.functional.interpolate(smooth_images(4), 256, mode="bicubic").clamp(0.1, 0.9)
    source = 0.1 + 0.6 * target * torch.tensor([1.1, 0.9, 0.8])[:, None, None]
    mask = torch.zeros(4, 1, 256, 256)
    mask[..., 64:192, 64:192] = 1
    composite = source * mask + target * (1 - mask)
    net = BlendingGAN(width=8, bottleneck=16)
    errors = []
    for size in (64, 256):
        small, small_mask = (torch.nn.functional.adaptive_avg_pool2d(x, size) for x in (composite, mask))
        maps = torch.nn.functional.interpolate(net.colour_map(small, small_mask), 256, mode="bilinear")
        changed = composite + (maps[:, :9].unflatten(1, (3, 3)) * composite[:, None]).sum(2) + maps[:, 9:]
        errors.append(((changed - target).abs() * mask).mean().item())
    assert errors[1] < errors[0]


def test_the_papers_form_ignores_the_mask(square):
    net = BlendingGAN(width=8, bottleneck=40, see_mask=False, residual=False, skips=False)
    composite = torch.rand(2, 3, 64, 64)
    blended = net(composite, square.expand(2, -1, -1, -1))
    assert blended.shape == composite.shape
    assert torch.equal(blended, net(composite, torch.zeros(2, 1, 64, 64)))
    torch.testing.assert_close(net.colour_map(composite, square)[:, 9:], blended - composite)


def test_images_of_a_batch_do_not_touch_each_other(square):
    net = BlendingGAN(width=8, bottleneck=16).eval()
    composite = torch.rand(3, 3, 64, 64)
    together = net(composite, square.expand(3, -1, -1, -1))
    alone = torch.cat([net(one[None], square) for one in composite])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_critic_scores_every_image():
    assert Critic(width=4)(torch.rand(5, 3, 64, 64)).shape == (5,)


def test_prior_without_a_seam_is_the_composite():
    composite = torch.rand(1, 3, 64, 64)
    for mask in (torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)):
        torch.testing.assert_close(seam_prior(composite, mask).guess(composite, mask), composite)


def test_prior_of_two_flat_colours_is_the_destinations(square):
    destination, source = torch.tensor([0.2, 0.5, 0.7])[:, None, None], torch.tensor([0.6, 0.4, 0.1])[:, None, None]
    composite = source * square + destination * (1 - square)
    guess = seam_prior(composite, square).guess(composite, square)
    torch.testing.assert_close(guess, destination.expand(1, 3, 64, 64), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("sigma", "left"), [(0, 0.2), (0.7, 0.5)])
def test_prior_undoes_a_change_of_light(square, sigma, left):
    target = smooth_images(8)
    source = 0.1 + 0.6 * target * torch.tensor([1.1, 0.9, 0.8])[:, None, None]
    mask = torch.from_numpy(soften(square[0, 0].numpy(), sigma))[None, None] if sigma else square
    composite = source * mask + target * (1 - mask)
    guess = seam_prior(composite, mask.expand(8, -1, -1, -1)).guess(composite, mask)
    error, before = ((mask * (image - target)).abs().mean().item() for image in (guess, composite))
    assert error < left * before


def test_prior_knows_one_scene_from_two(square):
    target = smooth_images(16)
    source = 0.1 + 0.6 * target * torch.tensor([1.1, 0.9, 0.8])[:, None, None]
    foreign = source.roll(1, 0)
    one, two = (
        seam_prior(piece * square + target * (1 - square), square.expand(16, -1, -1, -1)).alike
        for piece in (source, foreign)
    )
    assert one.shape == (16, 2, 1, 1)
    assert one[:, 0].mean() > 0.8 > two[:, 0].mean() + 0.4
    assert one[:, 1].mean() < 0.5 * two[:, 1].mean()


def test_prior_leaves_its_input_alone(square):
    composite = smooth_images(1)
    before = composite.clone()
    seam_prior(composite, square)
    assert torch.equal(composite, before)


def test_roots_equal_scipy():
    factor = 0.3 * np.random.default_rng(0).normal(size=(20, 3, 3))
    matrices = factor @ factor.transpose(0, 2, 1) + 0.001 * np.eye(3)
    roots, inverses = _roots(torch.from_numpy(matrices))
    for matrix, root, inverse in zip(matrices, roots.numpy(), inverses.numpy(), strict=True):
        np.testing.assert_allclose(root, sqrtm(matrix), atol=1e-6)
        np.testing.assert_allclose(inverse @ root, np.eye(3), atol=1e-5)


def test_membrane_is_near_the_exact_solution():
    """Against a sparse solution of (pull - Laplacian) u = pulled, free at the border."""
    n = 64
    wanted = np.add.outer(np.linspace(0, 1, n), np.linspace(-0.5, 0.5, n) ** 2)
    pull = np.zeros((n, n))
    pull[16, 16:48] = pull[47, 16:48] = pull[16:48, 16] = pull[16:48, 47] = 0.25
    line = sparse.diags([-np.ones(n - 1), np.r_[1, 2 * np.ones(n - 2), 1], -np.ones(n - 1)], [-1, 0, 1])
    laplacian = sparse.kron(line, sparse.eye(n)) + sparse.kron(sparse.eye(n), line)
    exact = spsolve((sparse.diags(pull.ravel()) + laplacian).tocsc(), (pull * wanted).ravel()).reshape(n, n)
    as_tensor = [torch.from_numpy(x)[None, None] for x in (pull, pull * wanted)]
    solved = _membrane(*as_tensor)[0, 0].numpy()
    inside = slice(17, 47)
    assert np.abs(solved - exact)[inside, inside].max() < 0.06 * np.ptp(exact)
    assert np.abs(solved - exact)[inside, inside].mean() < 0.02 * np.ptp(exact)
