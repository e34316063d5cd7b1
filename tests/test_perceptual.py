import pytest
import torch
from safetensors.torch import save_file

from velatura.errors import ModelError
from velatura.nets.features import Features
from velatura.perceptual import load_features


def test_a_users_vgg19(tmp_path):
    file = tmp_path / "vgg19-0.pth"
    shapes, before, number = {}, 3, 0
    for count, width in ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)):
        for _ in range(count):
            shapes |= {f"features.{number}.weight": (width, before, 3, 3), f"features.{number}.bias": (width,)}
            before, number = width, number + 2
        number += 1
    torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, file)
    net = load_features(f"vgg19:{file}")
    found = net(torch.rand(1, 3, 32, 32), ["conv2_2", "conv5_4"])
    assert {name: tuple(maps.shape) for name, maps in found.items()} == {
        "conv2_2": (1, 128, 16, 16),
        "conv5_4": (1, 512, 2, 2),
    }


class Dangerous:
    def __reduce__(self):
        return print, ("code in a pickle ran",)


def test_what_is_no_vgg19_is_refused(tmp_path, capsys):
    with pytest.raises(ModelError, match="no such file"):
        load_features(f"vgg19:{tmp_path}/none.pth")
    file = tmp_path / "evil.pth"
    torch.save({"features.0.weight": Dangerous()}, file)
    with pytest.raises(ModelError, match=r"evil\.pth: holds more than weights"):
        load_features(f"vgg19:{file}")
    assert "ran" not in capsys.readouterr().out
    for content, complaint in (({"a": torch.zeros(1)}, r"features\.0\.weight is missing"), ([1], "holds a list")):
        torch.save(content, file)
        with pytest.raises(ModelError, match=complaint):
            load_features(f"vgg19:{file}")


def test_our_features_by_file(tmp_path):
    net = Features((4, 4, 4, 4, 4))
    file = tmp_path / "mine.safetensors"
    notes = {"architecture": "Features", "arguments": '{"widths": [4, 4, 4, 4, 4]}'}
    save_file({key: value.half() for key, value in net.state_dict().items()}, file, notes)
    loaded = load_features(str(file))
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(loaded(image)["stride16"], net(image)["stride16"].detach(), atol=2e-2, rtol=2e-2)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_shipped_features():
    net = load_features()
    assert isinstance(net, Features)
    for head in net.heads.values():
        assert float(head.spread.min()) > 0
        assert float(head.mean.abs().max()) > 0
