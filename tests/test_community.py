"""Files of others: read by their names and shapes, or refused by name."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from velatura import community
from velatura.community import Adapted, load_upscaler, measured_radius
from velatura.errors import MachineError, ModelError
from velatura.nets.inference import for_inference
from velatura.nets.rows import in_bands
from velatura.nets.rrdb import RRDB
from velatura.nets.srresnet import SRResNet
from velatura.nets.srvgg import SRVGG


def esrgan(
    ups: int = 2, inputs: int = 3, outputs: int = 3, blocks: int = 2, growth: int = 4
) -> dict[str, torch.Tensor]:
    """Random weights of the published topology, as BasicSR names them; written without our network."""
    torch.manual_seed(0)
    width, state = 6, {}

    def convolution(name: str, few: int, many: int) -> None:
        state[f"{name}.weight"] = torch.randn(many, few, 3, 3) * 0.15
        state[f"{name}.bias"] = torch.randn(many) * 0.1

    convolution("conv_first", inputs, width)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for at in range(5):
                many = growth if at < 4 else width
                convolution(f"body.{block}.rdb{dense}.conv{at + 1}", width + at * growth, many)
    for name in ("conv_body", *(f"conv_up{at + 1}" for at in range(ups)), "conv_hr"):
        convolution(name, width, width)
    convolution("conv_last", width, outputs)
    return state


def enlarged(state: dict[str, torch.Tensor], image: torch.Tensor, unshuffle: int = 1) -> torch.Tensor:
    """ESRGAN's forward, step by step (Wang et al. 2018, figure 4)."""

    def convolve(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def leaky(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x < 0, 0.2 * x, x)

    first = x = convolve("conv_first", functional.pixel_unshuffle(image, unshuffle))
    for block in range(len({key.split(".")[1] for key in state if key.startswith("body.")})):
        outer = x
        for dense in (1, 2, 3):
            inner, seen = x, [x]
            for at in range(1, 5):
                seen.append(leaky(convolve(f"body.{block}.rdb{dense}.conv{at}", torch.cat(seen, 1))))
            x = inner + 0.2 * convolve(f"body.{block}.rdb{dense}.conv5", torch.cat(seen, 1))
        x = outer + 0.2 * x
    x = first + convolve("conv_body", x)
    for up in ("conv_up1", "conv_up2"):
        if f"{up}.weight" in state:
            x = leaky(convolve(up, x.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    return convolve("conv_last", leaky(convolve("conv_hr", x)))


def renamed(state: dict[str, torch.Tensor], layout: str) -> dict[str, torch.Tensor]:
    """The same weights in another layout."""
    blocks = len({key.split(".")[1] for key in state if key.startswith("body.")})
    last = 10 if "conv_up2.weight" in state else 7
    rules = {
        "basicsr": [],
        "esrgan": [
            (r"body\.(\d+)\.rdb(\d)\.(conv\d)", r"RRDB_trunk.\1.RDB\2.\3"),
            ("conv_body", "trunk_conv"),
            (r"conv_up(\d)", r"upconv\1"),
            ("conv_hr", "HRconv"),
        ],
        "old": [
            ("conv_first", "model.0"),
            (r"body\.(\d+)\.rdb(\d)\.(conv\d)", r"model.1.sub.\1.RDB\2.\3.0"),
            ("conv_body", f"model.1.sub.{blocks}"),
            ("conv_up1", "model.3"),
            ("conv_up2", "model.6"),
            ("conv_hr", f"model.{last - 2}"),
            ("conv_last", f"model.{last}"),
        ],
    }

    def name(key: str) -> str:
        for ours, theirs in rules[layout]:
            key = re.sub(rf"^{ours}(?=\.(weight|bias)$)", theirs, key)
        return key

    return {name(key): tensor for key, tensor in state.items()}


# --- ESRGAN


@pytest.mark.parametrize("layout", ["basicsr", "esrgan", "old"])
def test_every_layout_gives_the_same_picture(layout: str, tmp_path: Path):
    state, image = esrgan(), torch.rand(1, 3, 7, 9)
    torch.save(renamed(state, layout), tmp_path / "4x.pth")
    network = load_upscaler(tmp_path / "4x.pth")
    assert isinstance(network, RRDB)
    assert (network.scale, network.multiple, network.training) == (4, 1, False)
    torch.testing.assert_close(network(image), enlarged(state, image))


@pytest.mark.parametrize("layout", ["esrgan", "old"])
def test_one_doubling(layout: str, tmp_path: Path):
    state, image = esrgan(ups=1), torch.rand(1, 3, 7, 9)
    torch.save(renamed(state, layout), tmp_path / "2x.pth")
    network = load_upscaler(tmp_path / "2x.pth")
    assert network.scale == 2
    torch.testing.assert_close(network(image), enlarged(state, image))


@pytest.mark.parametrize("layout", ["basicsr", "old"])
@pytest.mark.parametrize(("scale", "unshuffle"), [(2, 2), (1, 4)])
def test_pixel_unshuffle(layout: str, scale: int, unshuffle: int, tmp_path: Path):
    state, image = esrgan(inputs=3 * unshuffle**2), torch.rand(2, 3, 8, 12)
    torch.save(renamed(state, layout), tmp_path / "2x.pth")
    network = load_upscaler(tmp_path / "2x.pth")
    assert (network.scale, network.multiple) == (scale, unshuffle)
    torch.testing.assert_close(network(image), enlarged(state, image, unshuffle))
    odd = image[:, :, :7, :9]
    continued = functional.pad(odd, (0, -9 % unshuffle, 0, -7 % unshuffle), mode="replicate")
    expected = enlarged(state, continued, unshuffle)[:, :, : 7 * scale, : 9 * scale]
    torch.testing.assert_close(network(odd), expected)


@torch.inference_mode()
def test_pixel_unshuffle_in_bands(tmp_path: Path):
    torch.save(esrgan(inputs=12), tmp_path / "2x.pth")
    network, image = load_upscaler(tmp_path / "2x.pth"), torch.rand(1, 3, 37, 9)
    bands = [(image[:, :, :16], False), (image[:, :, 16:20], False), (image[:, :, 20:], True)]
    torch.testing.assert_close(torch.cat(list(in_bands(network, bands)), 2), network(image))


def test_one_channel_takes_each_colour_by_itself(tmp_path: Path):
    state, image = esrgan(inputs=1, outputs=1), torch.rand(2, 3, 7, 9)
    torch.save(renamed(state, "old"), tmp_path / "grey.pth")
    expected = torch.stack([enlarged(state, image[:, at, None])[:, 0] for at in range(3)], 1)
    torch.testing.assert_close(load_upscaler(tmp_path / "grey.pth")(image), expected)


@torch.inference_mode()
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_others_run_in_half_precision(channels: int, tmp_path: Path):
    torch.save(esrgan(inputs=4 * channels, outputs=channels), tmp_path / "2x.pth")
    torch.save(SRVGG(4, width=8, depth=2, channels=channels).state_dict(), tmp_path / "4x.pth")
    image = torch.rand(1, 3, 20, 12)
    for name in ("2x.pth", "4x.pth"):
        network = load_upscaler(tmp_path / name)
        exact = network(image)
        bands = [(image[:, :, :8], False), (image[:, :, 8:], True)]
        halved = torch.cat(list(in_bands(for_inference(network, torch.bfloat16), bands)), 2)
        assert halved.dtype == torch.float32
        assert 0 < (halved - exact).abs().max() < 0.03 * exact.abs().max()


# --- SRVGG


@pytest.mark.parametrize(("scale", "channels"), [(4, 3), (2, 3), (1, 3), (2, 1)])
def test_srvgg(scale: int, channels: int, tmp_path: Path):
    torch.manual_seed(0)
    net, image = SRVGG(scale, width=5, depth=3, channels=channels), torch.rand(2, 3, 6, 8)
    save_file(net.state_dict(), tmp_path / "a.safetensors")
    network = load_upscaler(tmp_path / "a.safetensors")
    assert (network.scale, network.receptive_radius, network.multiple) == (scale, 5, 1)
    expected = net(image) if channels == 3 else torch.stack([net(image[:, at, None])[:, 0] for at in range(3)], 1)
    torch.testing.assert_close(network(image), expected)


# --- wrappers, types, the catalog


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16, None])
@pytest.mark.parametrize("wrapper", ["params_ema", "params", "state_dict", None])
def test_wrappers_and_types(wrapper: str | None, half: torch.dtype | None, tmp_path: Path):
    state = {f"module.{key}": tensor.to(half or torch.float32) for key, tensor in esrgan(blocks=1).items()}
    content = {wrapper: state, "iter": 5} if wrapper else state
    torch.save(content, tmp_path / "4x.pth")
    network = load_upscaler(tmp_path / "4x.pth")
    assert torch.equal(network.conv_hr.bias, state["module.conv_hr.bias"].float())


def test_the_average_is_preferred(tmp_path: Path):
    state = esrgan(blocks=1)
    torch.save({"params": state, "params_ema": {k: v + 1 for k, v in state.items()}}, tmp_path / "4x.pth")
    assert torch.equal(load_upscaler(tmp_path / "4x.pth").conv_hr.bias, state["conv_hr.bias"] + 1)


def test_our_own_files_and_names_come_through_the_catalog(tmp_path: Path):
    net = SRResNet(2, width=4, blocks=1)
    notes = {"architecture": "SRResNet", "arguments": '{"scale": 2, "width": 4, "blocks": 1}'}
    save_file(net.state_dict(), tmp_path / "mine.safetensors", notes)
    network = load_upscaler(tmp_path / "mine.safetensors")
    assert (type(network), network.scale, network.multiple) == (SRResNet, 2, 1)
    net = RRDB(2, width=4, growth=2, blocks=1, tail=4, unshuffle=2)
    notes = {
        "architecture": "RRDB",
        "arguments": '{"scale": 2, "width": 4, "growth": 2, "blocks": 1, "tail": 4, "unshuffle": 2}',
    }
    save_file(net.state_dict(), tmp_path / "mine.safetensors", notes)
    network = load_upscaler(tmp_path / "mine.safetensors")
    assert (network(torch.rand(1, 3, 5, 7)).shape, network.multiple) == ((1, 3, 10, 14), 2)
    with pytest.raises(ModelError, match="holds a BlendingGAN; expected SRCNN"):
        load_upscaler("blending-gan")
    with pytest.raises(ModelError, match="unknown model"):
        load_upscaler("srresent")


# --- what is refused


def without(state: dict, key: str) -> dict:
    return {name: tensor for name, tensor in state.items() if name != key}


def spoiled(state: dict, key: str, number: float) -> dict:
    tensor = state[key].clone()
    tensor.view(-1)[-1] = number
    return state | {key: tensor}


OLD, NEW = renamed(esrgan(), "old"), esrgan()
COMPACT = SRVGG(2, width=5, depth=3).state_dict()
REFUSED = {
    "old, a layer short": (without(OLD, "model.6.bias"), "misses tensor 'model.6.bias'"),
    "old, no last layer": (without(OLD, "model.10.weight"), "of 3 channels in and 6 out"),
    "old, a dense block short": (without(OLD, "model.1.sub.1.RDB3.conv5.0.bias"), "'model.1.sub.1.RDB3.conv5.0.bias'"),
    "old, a block skipped": (
        {key.replace("sub.1.", "sub.7."): tensor for key, tensor in OLD.items()},
        "misses tensor 'model.1.sub.1.RDB1",
    ),
    "old, three doublings": (
        OLD | {"model.9.weight": OLD["model.6.weight"], "model.13.weight": OLD["model.10.weight"]},
        "with 3 doublings; expected 1 or 2",
    ),
    "new, first layer short": (without(NEW, "conv_first.weight"), "misses tensor 'conv_first.weight'"),
    "new, no second doubling": (without(NEW, "conv_up2.weight"), "misses tensor 'conv_up2.weight'"),
    "new, one more": (NEW | {"conv_more.weight": torch.ones(2)}, "has the unknown tensor 'conv_more.weight'"),
    "new, NaN": (spoiled(NEW, "conv_hr.weight", float("nan")), "'conv_hr.weight' holds numbers that are not finite"),
    "new, infinite": (spoiled(NEW, "conv_hr.bias", float("inf")), "'conv_hr.bias' holds numbers that are not finite"),
    "new, wrong shape": (
        NEW | {"conv_body.weight": torch.ones(6, 5, 3, 3)},
        "'conv_body.weight' has shape (6, 5, 3, 3); expected (6, 6, 3, 3)",
    ),
    "new, flat": (NEW | {"conv_first.weight": torch.ones(6)}, "'conv_first.weight' has shape (6,); expected 4 sides"),
    "new, empty": (NEW | {"conv_last.weight": torch.ones(0, 6, 3, 3)}, "has shape (0, 6, 3, 3)"),
    "new, integers": (NEW | {"conv_hr.bias": torch.ones(6, dtype=torch.int32)}, "'conv_hr.bias' is int32"),
    "new, two channels": (esrgan(inputs=2, outputs=2), "of 2 channels in and 2 out; expected 1 or 3"),
    "new, colours of grey": (esrgan(inputs=1), "of 1 channels in and 3 out"),
    "new, one number for all": (
        NEW | {"conv_hr.weight": torch.ones(1).expand(6, 6, 3, 3)},
        "'conv_hr.weight' claims more numbers than the file holds",
    ),
    "compact, no activation": (without(COMPACT, "body.1.weight"), "misses tensor 'body.1.weight'"),
    "compact, a layer short": (without(COMPACT, "body.4.bias"), "misses tensor 'body.4.bias'"),
    "compact, one more": (COMPACT | {"upsampler.weight": torch.ones(1)}, "has the unknown tensor 'upsampler.weight'"),
    "compact, no square": (
        COMPACT | {"body.8.weight": torch.ones(15, 5, 3, 3)},
        "of 3 channels in and 15 places out; expected 1 or 3, and a square",
    ),
    "plus": (NEW | {"body.0.rdb1.conv1x1.weight": torch.ones(4, 6, 1, 1)}, "neither an ESRGAN nor an SRVGG"),
    "something else": ({"layer.weight": torch.ones(3)}, "neither an ESRGAN nor an SRVGG (it holds 'layer.weight')"),
    "nothing": ({}, "no weights at all"),
}  # fmt: skip


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_upscaler(path)
    message = str(caught.value)
    assert message.startswith(f"{path.name}: ")
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.fixture
def no_spandrel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)


@pytest.mark.usefixtures("no_spandrel")
@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, tmp_path: Path):
    content, reason = REFUSED[case]
    torch.save(content, tmp_path / "model.pth")
    assert reason in refused(tmp_path / "model.pth")


@pytest.mark.usefixtures("no_spandrel")
def test_what_is_not_read_here_names_the_extra(tmp_path: Path):
    torch.save({"layer.weight": torch.ones(3)}, tmp_path / "model.pth")
    assert 'pip install "velatura[community]"' in refused(tmp_path / "model.pth")


@pytest.mark.usefixtures("no_spandrel")
def test_every_truncation_is_refused(tmp_path: Path):
    torch.save(NEW, tmp_path / "a.pth")
    save_file(NEW, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.pth", tmp_path / "a.safetensors"):
        whole = path.read_bytes()
        for length in (0, 7, 100, len(whole) // 2, len(whole) - 30):
            path.write_bytes(whole[:length])
            refused(path)


class Bomb:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def test_code_in_a_file_is_refused_and_does_not_run(tmp_path: Path):
    torch.save(NEW | {"bomb": Bomb(tmp_path / "it-ran")}, tmp_path / "a.pth")
    assert "holds more than weights" in refused(tmp_path / "a.pth")
    assert not (tmp_path / "it-ran").exists()


# --- spandrel


@pytest.fixture
def spandrel():
    try:
        return importlib.import_module("spandrel")
    except Exception as error:  # torchvision raises RuntimeError where it does not fit torch
        pytest.skip(f"spandrel cannot be imported: {error}")


def test_spandrel_agrees(spandrel, tmp_path: Path):
    """The families that we read ourselves, against its networks, whose dense blocks always grow by 32."""
    contents = {
        "4x.pth": renamed(esrgan(growth=32), "old"),
        "2x.pth": esrgan(inputs=12, growth=32),
        "compact.pth": COMPACT,
    }
    for name, state in contents.items():
        torch.save(state, tmp_path / name)
        image = torch.rand(1, 3, 8, 12)
        theirs = spandrel.ModelLoader().load_from_file(tmp_path / name).eval()(image)
        torch.testing.assert_close(load_upscaler(tmp_path / name)(image).clamp(0, 1), theirs)


def test_spandrel_reads_the_rest(spandrel, tmp_path: Path):
    from spandrel.architectures.SPAN import SPAN

    torch.manual_seed(0)
    torch.save(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2).state_dict(), tmp_path / "span.pth")
    network = load_upscaler(tmp_path / "span.pth")
    assert network(torch.rand(2, 3, 19, 21)).shape == (2, 3, 38, 42)
    assert (network.scale, network.multiple, network.training) == (2, 32, False)
    assert network.receptive_radius == 32


def test_spandrel_that_does_not_work_is_the_machines_fault(monkeypatch, tmp_path: Path):
    (tmp_path / "spandrel.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    torch.save({"layer.weight": torch.ones(3)}, tmp_path / "model.pth")
    with pytest.raises(MachineError, match=r"model.pth: .* torchvision::nms does not exist.*install a torchvision"):
        load_upscaler(tmp_path / "model.pth")


class FakeDescriptor:
    """What `community.Spandrel` uses of a descriptor: enough to test the wrapper where spandrel cannot be imported."""

    def __init__(self, channels: int) -> None:
        self.model = nn.Conv2d(channels, channels, 5, padding=2)
        self.scale, self.input_channels = 1, channels
        self.size_requirements = type("Size", (), {"multiple_of": 12})()
        self.tiling = type("Tiling", (), {"name": "SUPPORTED"})()

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[0] == 1
        return self.model(image).clamp(0, 1)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
def test_the_interface_around_spandrel(channels: int):
    torch.manual_seed(0)
    descriptor = FakeDescriptor(channels)
    network = community.Spandrel(descriptor)
    image = torch.rand(2, 3, 6, 8)
    expected = descriptor.model(image.reshape(-1, channels, 6, 8)).clamp(0, 1).reshape(2, 3, 6, 8)
    torch.testing.assert_close(network(image), expected)
    assert (network.multiple, network.tiles_well, len(list(network.parameters()))) == (96, True, 2)


# --- the measured radius


def blur(radius: int, weight: float) -> nn.Module:
    """Look exactly so far, and weigh what is seen there."""
    net = nn.Conv2d(3, 3, 2 * radius + 1, padding=radius, groups=3, bias=False)
    nn.init.zeros_(net.weight)
    with torch.no_grad():
        net.weight[:, :, radius, radius] = 1 - weight
        net.weight[:, :, 0, 0] = net.weight[:, :, -1, -1] = weight / 2
    net.scale = 1
    return net


@pytest.mark.parametrize("radius", [1, 7, 20])
def test_what_a_network_sees_is_measured(radius: int):
    assert measured_radius(blur(radius, 0.5)) == (radius, 0)


def test_what_does_not_show_does_not_count():
    radius, error = measured_radius(blur(20, 0.001))
    assert radius == 0
    assert 0 < error <= 0.5


def test_the_radius_is_a_multiple():
    net = blur(7, 0.5)
    net.multiple = 4
    assert measured_radius(net) == (8, 0)


def test_a_network_that_sees_everything_says_so():
    class Mean(nn.Module):
        scale = 2

        def forward(self, image):
            return functional.interpolate(image - image.mean((2, 3), keepdim=True) + 0.5, scale_factor=2)

    radius, error = measured_radius(Mean())
    assert radius > 64
    assert error > 0.5


def test_tiles_with_the_measured_radius_are_within_its_error():
    torch.manual_seed(1)
    net = SRVGG(2, width=8, depth=6)
    radius, error = measured_radius(net)
    assert 0 < radius <= net.receptive_radius
    image = community._photographs()
    with torch.inference_mode():
        tile = net(image[:, :, 60:]).clamp(0, 1)[:, :, 2 * radius :]
        whole = net(image).clamp(0, 1)[:, :, 2 * (60 + radius) :]
    assert 255 * (tile - whole).abs().max() <= 2 * max(error, 0.5)


def test_small_probes_are_refused():
    with pytest.raises(ValueError, match="expected at least 144 on a side"):
        measured_radius(SRVGG(2, width=2, depth=1), torch.rand(1, 3, 100, 200))


def test_adapted_keeps_what_half_precision_must_not_touch():
    net = Adapted(RRDB(2, width=4, growth=2, blocks=1, tail=4, residual=False), 3, 1)
    assert [net.get_submodule(name) for name in net.full_precision] == [net.network.conv_last]
