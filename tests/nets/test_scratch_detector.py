import torch

from velatura.nets.scratch_detector import ScratchDetector


def test_it_is_small_and_gives_logits_of_any_size():
    net = ScratchDetector()
    assert sum(p.numel() for p in net.parameters()) < 5e5
    assert net(torch.rand(2, 3, 19, 33)).shape == (2, 1, 19, 33)


def test_an_image_does_not_know_its_neighbours():
    torch.manual_seed(0)
    net = ScratchDetector((4, 6), (1, 1))
    torch.nn.init.normal_(net.unet.leave.weight)
    images = torch.rand(3, 3, 16, 24)
    torch.testing.assert_close(net(images)[1:2], net(images[1:2]))


def test_the_halo_of_a_tile_is_less_than_a_tile():
    net = ScratchDetector()
    assert net.multiple == 8
    assert net.receptive_radius <= 96
