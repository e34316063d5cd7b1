import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import velatura
from velatura import catalog
from velatura.errors import ModelError
from velatura.nets.blending_gan import BlendingGAN
from velatura.training.export import export_weights


def test_what_is_exported_the_catalog_loads(tmp_path):
    net = BlendingGAN(width=8, bottleneck=16)
    file = tmp_path / "small.safetensors"
    arguments = {"width": 8, "bottleneck": 16}
    header = {"architecture": "BlendingGAN", "arguments": arguments, "recipe": {"name": "blend"}, "step": 3}
    export_weights(dict(net.state_dict()), file, header, torch.float16)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        assert opened.get_tensor("enter.weight").dtype == torch.float16
    assert metadata["architecture"] == "BlendingGAN"
    assert json.loads(metadata["arguments"]) == arguments
    assert json.loads(metadata["step"]) == 3
    loaded = catalog.load(str(file), {"BlendingGAN": BlendingGAN})
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, net.state_dict()[name].half().float())
    assert [path.name for path in tmp_path.iterdir()] == ["small.safetensors"]


def test_eight_bits_are_half_of_the_bytes_and_nearly_the_weights(tmp_path):
    net = BlendingGAN(width=16, bottleneck=32)
    torch.nn.init.zeros_(net.enter.weight)  # a channel that is nothing has a scale, too
    header = {"architecture": "BlendingGAN", "arguments": {"width": 16, "bottleneck": 32}}
    half, eight = tmp_path / "half.safetensors", tmp_path / "eight.safetensors"
    export_weights(dict(net.state_dict()), half, header, torch.float16)
    export_weights(dict(net.state_dict()), eight, header, torch.int8)
    assert eight.stat().st_size < 0.6 * half.stat().st_size
    loaded = catalog.load(eight, {"BlendingGAN": BlendingGAN}).state_dict()
    for name, tensor in net.state_dict().items():
        step = tensor.abs().flatten(1).amax(1) / 127 if tensor.ndim > 1 else tensor.abs() / 1024
        error = (loaded[name] - tensor).abs().flatten(1).amax(1) if tensor.ndim > 1 else (loaded[name] - tensor).abs()
        assert bool((error <= 0.51 * step + 1e-7).all()), name


def test_a_weight_too_large_for_half_precision_is_refused(tmp_path):
    with pytest.raises(ModelError, match="weight large is not finite"):
        export_weights({"large": torch.tensor([1e6])}, tmp_path / "x.safetensors", {}, torch.float16)
    assert not list(tmp_path.iterdir())


def test_outside_of_its_own_checkout_the_commit_is_unknown(tmp_path):
    """Installed into a repository of the user's, the package must not take that one's commit for its own."""
    ignored = shutil.ignore_patterns("weights", "__pycache__")
    shutil.copytree(Path(velatura.__file__).parent, tmp_path / "lib" / "velatura", ignore=ignored)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", tmp_path]
    for command in (["init"], ["add", "."], ["commit", "-m", "all"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    code = "from velatura.training import export; print(export.commit())"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=tmp_path / "lib", check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "unknown"


def test_shipped_weights_name_no_folder():
    for card in catalog.cards():
        with safe_open(Path(catalog.__file__).with_name("weights") / card.file, "pt") as opened:
            settings = json.loads(opened.metadata()["recipe"])["settings"]
        assert not [value for value in settings.values() if isinstance(value, str) and "/" in value], card.name
