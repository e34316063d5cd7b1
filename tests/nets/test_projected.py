"""The discriminator that looks through features."""

import pytest
import torch

from velatura.nets.projected import ProjectedDiscriminator

CHANNELS = {"stride8": 6, "stride16": 8}


@pytest.fixture
def maps() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"stride8": torch.randn(3, 6, 4, 4), "stride16": torch.randn(3, 8, 2, 2)}


def test_every_place_of_every_layer_is_judged(maps):
    logits = ProjectedDiscriminator(CHANNELS, width=4)(maps)
    assert [tuple(each.shape) for each in logits] == [(3, 4, 4), (3, 2, 2)]
    assert all(each.dtype == torch.float32 for each in logits)


def test_the_mixture_of_channels_does_not_learn_and_is_saved():
    net = ProjectedDiscriminator(CHANNELS, width=4)
    assert not [name for name, _ in net.named_parameters() if "mixing" in name]
    assert len([name for name in net.state_dict() if "mixing" in name]) == len(CHANNELS)


def test_classes_are_told_apart_once_they_were_learned(maps):
    net = ProjectedDiscriminator(CHANNELS, width=4, classes=2).eval()
    red, blue = (torch.full((3,), number) for number in (0, 1))
    assert torch.equal(net(maps, red)[0], net(maps, blue)[0])  # at first a class says nothing
    with torch.no_grad():
        for name, weights in net.named_parameters():
            if "name" in name:
                weights.normal_()
    assert not torch.equal(net(maps, red)[0], net(maps, blue)[0])


def test_it_learns_to_tell_one_kind_of_maps_from_another(maps):
    net = ProjectedDiscriminator(CHANNELS, width=8)
    other = {name: each.roll(1, dims=1) + 1 for name, each in maps.items()}
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(80):
        real, made = net(maps), net(other)
        loss = sum((1 - a).relu().mean() + (1 + b).relu().mean() for a, b in zip(real, made, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(a.mean() > b.mean() + 0.5 for a, b in zip(net(maps), net(other), strict=True))
