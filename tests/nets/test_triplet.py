import pytest
import torch

from velatura.nets.tiles import in_tiles
from velatura.nets.triplet import LatentDiscriminator, Mapping, PartialNonlocal, PhotoVAE, Triplet

SMALL = {"latent": 4, "vae_width": 2, "vae_blocks": 1, "width": 4, "blocks": 2, "window": 4, "halo": 2}


def triplet():
    torch.manual_seed(0)
    return Triplet(**SMALL).double().eval()


def test_the_autoencoder_keeps_the_size():
    net = PhotoVAE(4, 2, 1)
    image = torch.rand(2, 3, 18, 21)
    noise = torch.randn(2, 4, 5, 6)
    made, posterior = net(image, noise)
    assert made.shape == image.shape
    assert posterior.mean.shape == posterior.log_variance.shape == noise.shape
    torch.testing.assert_close(made, net.decode(posterior.sample(noise))[..., :18, :21])
    torch.testing.assert_close(net(image)[0], net.decode(posterior.mean)[..., :18, :21])


def test_attention_is_that_of_the_paper_where_one_window_holds_all():
    """Section 3.2, one place at a time."""
    torch.manual_seed(0)
    net = PartialNonlocal(6, window=4, halo=0).double()
    x, mask = torch.randn(1, 6, 4, 4, dtype=torch.float64), (torch.rand(1, 1, 4, 4) < 0.4).double()
    found = net._attend(x, mask)
    query, (key, value) = net.query(x), net.key_value(x).chunk(2, 1)
    for i in range(4):
        for j in range(4):
            scores, values = [], []
            for k in range(4):
                for m in range(4):
                    if not mask[0, 0, k, m]:
                        scores.append((query[0, :, i, j] * key[0, :, k, m]).sum() / 3**0.5)
                        values.append(value[0, :, k, m])
            expected = (torch.stack(scores).softmax(0)[:, None] * torch.stack(values)).sum(0)
            torch.testing.assert_close(found[0, :, i, j], expected)


def test_attention_never_reads_damaged_places():
    net = PartialNonlocal(6, window=4, halo=2)
    x, mask = torch.randn(1, 6, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:4, 5:7] = 1
    other = torch.where(mask.bool(), torch.randn_like(x), x)
    known = ~mask.bool().expand(-1, 3, -1, -1)
    torch.testing.assert_close(net._attend(x, mask)[known], net._attend(other, mask)[known])
    assert not net._attend(x, torch.ones_like(mask)).any()  # nothing is known: nothing is found
    assert torch.isfinite(net(x, torch.ones_like(mask))).all()


def test_windows_look_a_halo_beyond_themselves():
    net = PartialNonlocal(4, window=4, halo=2)
    x, mask = torch.randn(1, 4, 12, 12, requires_grad=True), torch.zeros(1, 1, 12, 12)
    net._attend(x, mask)[..., 5, 5].sum().backward()
    where = x.grad.abs().sum((0, 1)).nonzero()
    assert where.amin(0).tolist() == [2, 2]
    assert where.amax(0).tolist() == [9, 9]


def test_damaged_places_take_what_attention_finds_and_others_do_not():
    net = PartialNonlocal(4, window=4, halo=2)
    x, mask = torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)
    torch.testing.assert_close(net(x, mask), x + net.alone(x))
    mask[..., 6:, 6:] = 1
    changed = (net(x, mask) - x - net.alone(x)).abs().sum(1)[0] > 1e-6
    assert changed.nonzero().amin(0).tolist() == [6, 6]


@torch.inference_mode()
def test_tiles_give_what_the_whole_gives():
    net = triplet()
    joint = torch.rand(1, 4, 90, 120, dtype=torch.float64)
    joint[:, 3] = (joint[:, 3] < 0.05).double()

    class Joint(torch.nn.Module):
        scale, multiple = 1, net.multiple

        def forward(self, x):
            return net(x[:, :3], x[:, 3:])

    halo = -(-net.receptive_radius // net.multiple) * net.multiple
    rows = in_tiles(Joint(), lambda start, stop: joint[:, :, start:stop], 90, 120, net.multiple, halo)
    torch.testing.assert_close(torch.cat(list(rows), 2), Joint()(joint), atol=1e-10, rtol=0)


def test_the_receptive_radius_is_exact():
    net = triplet()
    for name, parameter in net.named_parameters():
        if ".query" not in name and ".key_value" not in name:
            torch.nn.init.uniform_(parameter, 0.02, 0.1)
    side, found = 2 * net.receptive_radius + 4 * net.multiple, 0
    for phase in (0, net.multiple // 2, net.multiple - 1):
        middle = side // 2 // net.multiple * net.multiple + phase
        image = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
        mask = torch.zeros(1, 1, side, side, dtype=torch.float64)
        mask[..., ::8, ::8] = 1
        net(image, mask)[:, :, middle, middle].sum().backward()
        found = max(found, int((image.grad.abs().sum((0, 1)).nonzero() - middle).abs().max()))
    assert found == net.receptive_radius


def test_parts_and_gradients():
    net = Triplet(**SMALL)
    image, mask = torch.rand(2, 3, 18, 30), torch.zeros(2, 1, 18, 30)
    mask[..., 4:9, 4:9] = 1
    net(image, mask).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert net.latents(image, mask).shape == (2, 4, 8, 8)
    assert isinstance(net.mapping, Mapping)
    assert LatentDiscriminator(4, 4)(torch.rand(1, 4, 8, 8)).shape == (1, 1, 4, 4)


def test_memory_grows_with_the_number_of_pixels():
    """A window's attention has one size, however large the image is."""
    net = PartialNonlocal(4, window=4, halo=2)
    sizes = []
    softmax = torch.Tensor.softmax

    def counted(self, dim):
        sizes.append(self.numel())
        return softmax(self, dim)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "softmax", counted)
        for side in (8, 16):
            net(torch.rand(1, 4, side, side), torch.zeros(1, 1, side, side))
    assert sizes[1] == 4 * sizes[0]
