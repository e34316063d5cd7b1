"""What is exported gives, in another runtime, what it gives here."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import velatura
from velatura import catalog
from velatura.errors import InputError, MachineError, ModelError
from velatura.nets.blending_gan import BlendingGAN
from velatura.nets.rrdb import RRDB
from velatura.nets.srcnn import SRCNN
from velatura.nets.srresnet import SRResNet
from velatura.nets.srvgg import SRVGG
from velatura.onnx_export import OPSET, export_onnx

NETWORKS = {
    "srcnn": (SRCNN, {"scale": 3}),
    "srresnet": (SRResNet, {"width": 4, "blocks": 1}),
    "srresnet-paper": (SRResNet, {"scale": 2, "width": 4, "blocks": 1, "norm": True, "residual": False}),
    "esrgan": (RRDB, {"width": 4, "growth": 2, "blocks": 1, "tail": 4}),
    "srvgg": (SRVGG, {"scale": 2, "width": 4, "depth": 1}),
    "blending-gan": (BlendingGAN, {"width": 4, "bottleneck": 8, "prior": False}),
    "judge": (nn.Linear, {"in_features": 1, "out_features": 1}),
}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A catalog of small models with random weights."""
    (tmp_path / "weights").mkdir()
    text = ""
    for name, (build, arguments) in NETWORKS.items():
        torch.manual_seed(0)
        net = build(**arguments)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.1)
        notes = {"architecture": build.__name__, "arguments": json.dumps(arguments), "commit": "abc1234"}
        save_file(net.state_dict(), tmp_path / f"weights/{name}.safetensors", notes)
        text += (
            f'[{name}]\ntask = "upscale"\nfile = "{name}.safetensors"\nimages = []\ncommercial_use = true\n'
            'commercial_use_reason = "made of random numbers"\nweights_licence = "CC0-1.0"\nrecipe = "none"\n'
            'paper = "none"\nprotocol = "none"\nlimits = ["It does nothing."]\n\n'
        )
    (tmp_path / "catalog.toml").write_text(text)
    monkeypatch.setattr(catalog, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(catalog, "CATALOG", tmp_path / "catalog.toml")
    for name in NETWORKS:
        catalog.fill_card(name)
    yield tmp_path
    catalog._read_catalog.cache_clear()


def run(path: Path, **inputs: torch.Tensor) -> torch.Tensor:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return torch.from_numpy(output)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("blending-gan", "judge")])
def test_upscalers_of_any_size(house: Path, name: str):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    build, _ = NETWORKS[name]
    path = house / f"{name}.onnx"
    export_onnx(name, path)
    net = catalog.load(name, {build.__name__: build})
    for height, width in [(1, 1), (2, 7), (16, 24), (33, 10)]:
        image = torch.rand(1, 3, height, width)
        torch.testing.assert_close(run(path, image=image), net(image), atol=1e-4, rtol=0)

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    (image,), (result,) = model.graph.input, model.graph.output
    sides = [[side.dim_param or side.dim_value for side in one.type.tensor_type.shape.dim] for one in (image, result)]
    assert sides == [[1, 3, "height", "width"], [1, 3, f"{net.scale}*height", f"{net.scale}*width"]]


def test_what_the_file_says_about_itself(house: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    path = house / "a.onnx"
    notes = export_onnx("srvgg", path)
    held = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert held == notes
    card = catalog.card("srvgg")
    assert (held["name"], held["licence"], held["sha256"]) == ("srvgg", "CC0-1.0", card.sha256)
    assert (held["scale"], held["receptive_radius"], held["multiple"]) == ("2", "3", "1")
    assert "0..1" in held["range"]
    # Nothing of the machine that wrote it.
    data = path.read_bytes()
    for trace in (velatura.__file__, torch.__file__, ".py"):
        assert trace.encode() not in data
    assert export_onnx("srvgg", path, overwrite=True) == notes
    assert path.read_bytes() == data


def test_two_inputs_of_one_size(house: Path):
    pytest.importorskip("onnxscript")
    export_onnx("blending-gan", house / "b.onnx")
    net = catalog.load("blending-gan", {"BlendingGAN": BlendingGAN})
    composite, mask = torch.rand(1, 3, 64, 64), (torch.rand(1, 1, 64, 64) > 0.5).float()
    torch.testing.assert_close(
        run(house / "b.onnx", composite=composite, mask=mask), net(composite, mask), atol=1e-4, rtol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [card.name for card in catalog.cards()])
def test_shipped_models(name: str, tmp_path: Path):
    pytest.importorskip("onnxscript")
    from velatura.onnx_export import ARCHITECTURES

    card = catalog.card(name)
    if card.architecture not in ARCHITECTURES:
        with pytest.raises(ModelError, match="does not give an image"):
            export_onnx(name, tmp_path / "a.onnx")
        return
    export_onnx(name, tmp_path / "a.onnx")
    net = catalog.load(name, ARCHITECTURES)
    image, mask = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    mask[:, :, 20:40, 16:50] = 1
    inputs = {"composite": image, "mask": mask} if card.architecture == "BlendingGAN" else {"image": image}
    torch.testing.assert_close(run(tmp_path / "a.onnx", **inputs), net(*inputs.values()), atol=1e-4, rtol=0)


def test_refusals(house: Path):
    with pytest.raises(ModelError, match="did you mean 'srcnn'"):
        export_onnx("srcn", house / "a.onnx")
    with pytest.raises(ModelError, match="a Linear does not give an image; what can be exported: srcnn, srresnet,"):
        export_onnx("judge", house / "a.onnx")
    with pytest.raises(InputError, match=r"a.bin: expected a name that ends in \.onnx"):
        export_onnx("srcnn", house / "a.bin")
    with pytest.raises(InputError, match=r"a.onnx: cannot be written; name a file in a folder that exists"):
        export_onnx("srcnn", house / "absent/a.onnx")
    (house / "a.onnx").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"a.onnx: exists; .*--overwrite"):
        export_onnx("srcnn", house / "a.onnx")
    assert (house / "a.onnx").read_bytes() == b"precious"


def test_a_failure_leaves_what_was_there(house: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("onnxscript")
    (house / "a.onnx").write_bytes(b"precious")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        export_onnx("srvgg", house / "a.onnx", overwrite=True)
    assert (house / "a.onnx").read_bytes() == b"precious"
    assert {path.suffix for path in house.iterdir() if path.is_file()} == {".onnx", ".toml"}


def test_without_the_exporter(house: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MachineError, match=r'onnx is not installed; pip install "velatura\[onnx\]"'):
        export_onnx("srcnn", house / "a.onnx")
