import torch

from velatura.nets.features import Features
from velatura.nets.style_features import StyleFeatures


def test_it_gives_what_the_features_give_behind_their_activation():
    torch.manual_seed(0)
    features, image = Features((4, 6, 8, 8, 8)).requires_grad_(False), torch.rand(2, 3, 48, 32)
    for name, width in Features.CHANNELS.items():
        features.calibrate(name, torch.randn(width), 0.5 + torch.rand(width))
    before = {name: value.clone() for name, value in features.state_dict().items()}
    ours = StyleFeatures(features)
    expected = features.activated(features(image))
    found = ours.activated(ours(image))
    assert list(found) == list(Features.LAYERS)
    for name, maps in found.items():
        torch.testing.assert_close(maps, expected[name], atol=1e-5, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in features.state_dict().items())
