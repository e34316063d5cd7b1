import pytest
import torch
from stylers import make

from velatura.nets.features import Features
from velatura.nets.inference import for_inference
from velatura.nets.rows import in_bands
from velatura.nets.style_transfer import EPSILON, ConditionalNorm, StylePredictor, StyleTransfer, likeness


@pytest.fixture(scope="module")
def net():
    return make()


@pytest.fixture(scope="module")
def photo():
    return torch.rand(1, 3, 93, 61, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def vector(net):
    return net.predictor(torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(2)))


def test_conditional_norm_is_equation_5():
    torch.manual_seed(0)
    norm, x, style = ConditionalNorm(4, 6).double(), torch.randn(2, 4, 5, 7).double(), torch.randn(2, 6).double()
    scale, shift = norm.affine(style).chunk(2, 1)
    for i in range(2):
        for c in range(4):
            one = x[i, c]
            plain = (one - one.mean()) / (one.var(correction=0) + EPSILON).sqrt()
            expected = scale[i, c] * plain + shift[i, c]
            torch.testing.assert_close(norm(x, style)[i, c], expected, atol=1e-5, rtol=1e-4)


def test_scales_and_shifts_begin_as_a_plain_norm():
    norm = ConditionalNorm(3, 5)
    scale, shift = norm.affine(torch.zeros(1, 5)).chunk(2, 1)
    assert scale.tolist() == [[1, 1, 1]]
    assert shift.tolist() == [[0, 0, 0]]


def test_the_style_decides(net, photo):
    styles = [torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32) ** 4]
    one, two = (net(photo, style) for style in styles)
    assert one.shape == photo.shape
    assert (one - two).abs().mean() > 0.01
    assert 0 <= one.min() <= one.max() <= 1


def test_a_batch_is_its_images(net, photo):
    styles = torch.rand(2, 3, 32, 32)
    photos = torch.cat([photo, photo.flip(3)])
    both = net(photos, styles)
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], net(photos[i : i + 1], styles[i : i + 1]), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_fixed_norms_give_the_same(net, photo, vector):
    whole = net.transformer(photo, style=vector)
    torch.testing.assert_close(net.transformer.fixed(photo, vector)(photo), whole, atol=1e-5, rtol=0)
    # What they were measured on matters, or this test would say nothing.
    other = net.transformer.fixed(photo**3, vector)(photo)
    assert (other - whole).abs().max() > 0.02


@torch.no_grad()
@pytest.mark.parametrize("bands", [(8, 8, 40, 37), (16, 24, 48, 5), (88, 5)])
def test_bands_equal_the_whole(net, photo, vector, bands):
    fixed = for_inference(net.transformer.fixed(photo, vector))
    starts = [sum(bands[:i]) for i in range(len(bands))]
    parts = ((photo[:, :, y : y + h], y + h == photo.shape[2]) for y, h in zip(starts, bands, strict=True))
    made = torch.cat(list(in_bands(fixed, parts)), 2)
    (whole,) = in_bands(fixed, [(photo, True)])
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=0)


def test_receptive_radius_is_what_it_sees(net):
    transformer = make().transformer.fixed(torch.rand(1, 3, 64, 64), torch.zeros(1, 100)).double()
    for parameter in transformer.parameters():
        torch.nn.init.uniform_(parameter, 0.001, 0.002)  # positive: nothing cancels, no ReLU is closed
    radius = transformer.receptive_radius
    side = -(-(2 * radius + 40) // 8) * 8
    furthest = 0
    for middle in range(side // 2, side // 2 + 8):
        image = torch.full((1, 3, 8, side), 0.9, dtype=torch.float64, requires_grad=True)
        transformer(image)[0, 0, 4, middle].backward()
        seen = image.grad.abs().sum((0, 1, 2)).nonzero().flatten() - middle
        furthest = max(furthest, -int(seen.min()), int(seen.max()))
    assert radius - 8 <= furthest <= radius


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 9), (33, 200)])
def test_any_size(net, vector, size):
    made = net.transformer(torch.rand(1, 3, *size), style=vector)
    assert made.shape[-2:] == size
    assert made.isfinite().all()


@torch.no_grad()
def test_flat_stays_flat(net, vector):
    """Repeated pixels and mirrored borders: no checkerboard, no frame."""
    made = net.transformer(torch.full((1, 3, 50, 70), 0.6), style=vector)
    assert (made - made[..., :1, :1]).abs().max() < 1e-6


def test_predictor_starts_from_features():
    torch.manual_seed(0)
    features = Features()
    predictor = StylePredictor((32, 64, 96, 128), 100)
    predictor.see_through(features)
    x = (torch.rand(1, 3, 32, 32) - features.mean) / 0.25
    torch.testing.assert_close(predictor.stages[1](predictor.stages[0](x)), features.stages[1](features.stages[0](x)))
    assert len(predictor.stages) == 4


def test_vectors_have_unit_variance(net):
    vectors = net.predictor(torch.rand(3, 3, 32, 48))
    assert vectors.shape == (3, 100)
    torch.testing.assert_close(vectors.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors.var(1, correction=0), torch.ones(3), atol=1e-2, rtol=0)


def test_likeness():
    style = torch.randn(2, 100)
    assert likeness(style, style).tolist() == [1, 1]
    near, far = likeness(style, style + 0.005), likeness(style, style + 0.15)
    assert (near > 0.97).all()
    assert (far < 1e-5).all()


def test_gradients_reach_everything():
    torch.manual_seed(0)
    net = StyleTransfer(12, 2, 1)
    net(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)).square().mean().backward()
    missing = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.abs().sum()]
    # A bias before a norm is taken off again.
    assert [name for name in missing if not name.endswith("convolution.bias")] == []
