import torch

from velatura.nets.restoration import Restorer


def net():
    torch.manual_seed(0)
    made = Restorer((4, 6), (1, 1))
    torch.nn.init.normal_(made.unet.leave.weight, std=0.1)
    return made


def test_it_begins_with_the_scan():
    image = torch.rand(2, 3, 17, 22)
    assert torch.equal(Restorer((4, 6), (1, 1))(image, torch.ones(2, 1, 17, 22)), image)


@torch.inference_mode()
def test_the_mask_matters_around_it_alone():
    made, image, mask = net(), torch.rand(1, 3, 80, 80), torch.zeros(1, 1, 80, 80)
    without = made(image, mask)
    mask[..., 40, 40] = 1
    changed = (made(image, mask) != without).any(1)[0].nonzero()
    radius = made.receptive_radius
    assert len(changed) > 9
    assert (changed - 40).abs().max() <= radius < 35


def test_what_is_under_the_mask_is_seen():
    made, image, mask = net(), torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    assert not torch.allclose(made(image, mask), made(image.flip(3), mask).flip(3))


def test_weights_fit_the_wheel():
    assert 1e6 < sum(p.numel() for p in Restorer().parameters()) < 2e6
