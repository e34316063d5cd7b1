"""Exported upscalers without torch."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from velatura import onnx_export
from velatura.errors import MachineError, ModelError
from velatura.nets.srresnet import SRResNet
from velatura.openvino_engine import ExportedUpscaler
from velatura.tiling import tiles

NOTES = {"name": "small", "scale": "2", "receptive_radius": "12", "halo": "6"}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    net = SRResNet(2, width=8, blocks=2)
    nn.init.normal_(net.tail.weight, std=0.05)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def exported(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("onnxscript", "onnx"):
        pytest.importorskip(module)
    sys.modules.setdefault("openvino_telemetry", None)
    pytest.importorskip("openvino")
    path = tmp_path_factory.mktemp("exported") / "small.onnx"
    write(path, network, NOTES)
    return path


def write(path: Path, network: nn.Module, notes: dict[str, str]) -> None:
    model = onnx_export._converted(network)
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(image, 2, 0)[None])


def test_it_gives_what_torch_gives(exported: Path, network: nn.Module):
    engine = ExportedUpscaler(exported, half=False)
    assert (engine.name, engine.scale, engine.receptive_radius, engine.halo) == ("small", 2, 12, 6)
    rng = np.random.default_rng(0)
    results = []
    for height, width in [(1, 1), (9, 14), (30, 5)]:
        image = rng.random((height, width, 3), np.float32)
        results.append((engine(image), np.moveaxis(network(planes(image))[0].numpy(), 0, 2)))
    for result, expected in results:  # after all calls: none writes onto the result of another
        np.testing.assert_allclose(result, expected, atol=1e-5)
    assert abs(ExportedUpscaler(exported)(image) - expected).max() < 0.05


def test_threads_do_not_disturb_each_other(exported: Path):
    engine = ExportedUpscaler(exported, half=False)
    images = [np.random.default_rng(seed).random((40, 50, 3), np.float32) for seed in range(16)]
    expected = [engine(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(engine, images * 4))
    for result, wanted in zip(results, expected * 4, strict=True):
        np.testing.assert_array_equal(result, wanted)


def test_tiles_equal_the_whole(exported: Path):
    engine = ExportedUpscaler(exported, half=False)
    image = np.random.default_rng(0).random((50, 41, 3), np.float32)
    whole, parts = engine(image), np.empty((100, 82, 3), np.float32)
    for tile in tiles(50, 41, 16, engine.receptive_radius):
        rows, columns = (slice(2 * part.start, 2 * part.stop) for part in tile.crop)
        place = tuple(slice(2 * part.start, 2 * part.stop) for part in tile.inner)
        parts[place] = engine(image[tile.outer])[rows, columns]
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_neither_torch_nor_a_word_to_anybody(exported: Path, tmp_path: Path):
    code = (
        "import sys, numpy, velatura.openvino_engine as engine\n"
        f"engine.ExportedUpscaler({str(exported)!r})(numpy.zeros((4, 4, 3), numpy.float32))\n"
        "print('torch' in sys.modules, sys.modules['openvino_telemetry'])"
    )
    home = {**os.environ, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    home.pop("CI", None)  # there it would be silent by itself
    words = subprocess.run([sys.executable, "-c", code], env=home, check=True, capture_output=True, text=True).stdout
    assert words.split()[:2] == ["False", "None"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("notes", "reason"),
    [({"scale": "2"}, "does not say its name"), (NOTES | {"halo": "far"}, "what it says about itself is damaged")],
)
def test_files_of_others_are_refused(notes: dict[str, str], reason: str, exported: Path, network, tmp_path: Path):
    write(tmp_path / "a.onnx", network, notes)
    with pytest.raises(ModelError, match=f"a.onnx: .*{reason}"):
        ExportedUpscaler(tmp_path / "a.onnx")


def test_damaged_files_are_refused(exported: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="no such file"):
        ExportedUpscaler(tmp_path / "absent.onnx")
    data = exported.read_bytes()
    for length in (0, 100, len(data) // 2, len(data) - 10):
        (tmp_path / "a.onnx").write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"^a\.onnx: "):
            ExportedUpscaler(tmp_path / "a.onnx")


def test_without_openvino(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "a.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MachineError, match=r'pip install "velatura\[openvino\]"'):
        ExportedUpscaler(tmp_path / "a.onnx")
