"""From sentences to a file that makes pictures: the three recipes one after the other, and what they measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data_folder import crop

from velatura.nets.features import Features
from velatura.nets.gan_cls import TextToImage
from velatura.nets.text_encoder import POOLED, JointEmbedding
from velatura.training import export
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import imagine

COLORS = ("red", "blue", "white", "yellow")
SMALL = ["batch_size=4", "threads=1", "warmup=0", "log_every=1", "steps=2"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Photographs of fifty classes with sentences, and random features."""
    folder = tmp_path_factory.mktemp("birds")
    for number in range(50):
        kind = f"{number:03d}.bird"
        for place in (folder / "images" / kind, folder / "text_c10" / kind):
            place.mkdir(parents=True, exist_ok=True)
        (folder / "images" / kind / f"bird_{number}.png").write_bytes(crop(number))
        said = f"a {COLORS[number % 4]} bird\nthis bird is number {number}\n"
        (folder / "text_c10" / kind / f"bird_{number}.txt").write_text(said)
    path, widths = folder / "features.safetensors", [4] * 5
    torch.manual_seed(0)
    header = {"architecture": "Features", "arguments": {"widths": widths}}
    export.export_weights(dict(Features(widths).state_dict()), path, header, torch.float32)
    return [*SMALL, f"photographs={folder}", f"features={path}"]


def test_the_three_recipes_one_after_the_other(settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(imagine, "MEASURED", 12)
    monkeypatch.setattr(imagine, "WATCHED", 10)
    text, made = tmp_path / "text.safetensors", tmp_path / "made.safetensors"

    more = ["embedding=4", "width=4", "text_size=8", "picture_width=8"]
    first = imagine.TrainTextEncoder(make_config(imagine.TextEncoderConfig, settings=[*settings, *more]))
    train(first, tmp_path / "a", quiet=True)
    header = {"architecture": "JointEmbedding", "arguments": first.arguments}
    export.export_weights(dict(first.networks["joint"].state_dict()), text, header, torch.float32)

    small = ["noise=6", "condensed=4", "width=4", "critic_width=4", f"text={text}", f"judge={text}", "penalty_every=2"]
    small += ["basis=4", "projected=1", "spectral=1", "energy=1"]
    second = imagine.TrainImagine(make_config(imagine.ImagineConfig, settings=[*settings, *small]))
    before = {name: value.clone() for name, value in second.networks["imagine"].state_dict().items()}
    onlooker = {name: value.clone() for name, value in second.networks["projected"].named_parameters()}
    judged: list[tuple[torch.Tensor, ...]] = []
    second.networks["discriminator"].register_forward_pre_hook(lambda _, given: judged.append(given))
    train(second, tmp_path / "b", quiet=True)
    (_, sentence, _), (_, asked), *_ = judged
    assert torch.equal(asked, imagine.between(sentence))  # what is made between sentences is judged so, too
    assert not torch.equal(asked, sentence)
    after = second.networks["imagine"].state_dict()
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"condense", "generator"}  # the text encoder stays
    assert any((p != onlooker[name]).any() for name, p in second.networks["projected"].named_parameters())
    logged = (tmp_path / "b" / "log.csv").read_text().splitlines()[0].split(",")
    assert {"train/spectral", "train/energy"} < set(logged)
    leave = "generator.leave.weight"
    for number, (loss, same) in enumerate({"spectral=1": True, "spectral=0": False, "energy=0": False}.items()):
        again = imagine.TrainImagine(make_config(imagine.ImagineConfig, settings=[*settings, *small, loss]))
        train(again, tmp_path / f"again-{number}", quiet=True)  # losses are followed, not logged alone
        assert torch.equal(again.networks["imagine"].state_dict()[leave], after[leave]) == same
    scores = second.evaluate(second.networks["imagine"].eval())
    assert set(scores) == {"retrieval_unseen"}  # of each class there is one photograph
    basis = after["generator.basis"]
    assert basis[:6].abs().amax((1, 2, 3)).gt(0).all()  # begun with the pictures, and never trained
    assert basis[6:].eq(0).all()
    header = {"architecture": "TextToImage", "arguments": second.arguments}
    export.export_weights(dict(after), made, header, torch.float32)

    third = imagine.TrainStyleEncoder(
        make_config(imagine.StyleEncoderConfig, settings=[*settings, "style_width=4", f"imagine={made}"])
    )
    train(third, tmp_path / "c", quiet=True)
    whole = third.networks["imagine"]
    assert isinstance(whole, TextToImage)
    assert all(torch.equal(value, after[name]) for name, value in whole.state_dict().items() if name in after)
    assert set(third.evaluate(whole.eval())) == {"error", "auc"}


@pytest.mark.parametrize("variant", ["gan", "gan-cls", "gan-int", "gan-int-cls"])
def test_settings_of_the_variants(variant: str):
    folder = Path(imagine.__file__).parent
    config = make_config(imagine.ImagineConfig, folder / "imagine.toml", settings=[f"variant={variant}"])
    assert config.variant == variant
    assert make_config(imagine.ImagineConfig, folder / "imagine_paper.toml").recolored == 0


def test_verification():
    torch.manual_seed(0)
    first = torch.randn(40, 8)
    assert imagine.verification_auc(first, first + 0.1 * torch.randn(40, 8)) > 0.95
    assert 0.35 < imagine.verification_auc(first, torch.randn(40, 8)) < 0.65


def test_the_color_shown():
    images = torch.zeros(2, 3, 64, 64)
    images[:, 1] = 0.3  # leaves
    images[0, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    images[1, :, 16:48, 16:48] = torch.tensor([0.1, 0.2, 0.9])[:, None, None]
    assert imagine.color_shown(images, [("red",), ("red", "white")]).tolist() == [1.0, 0.0]


def test_retrieval_of_one_that_knows_and_of_one_that_guesses():
    torch.manual_seed(0)
    words = [f"word{i}" for i in range(40)]
    judge = JointEmbedding({"vocabulary": words, "embedding": 4, "width": 4, "size": 40}, {"size": 40}).eval()
    guessed = imagine.retrieved(judge, torch.randn(40, POOLED), words, np.arange(40))
    assert guessed.mean() < 0.4
    right = judge.text(judge.text.tokens(words)).detach()
    judge.picture = torch.nn.Identity()  # type: ignore[assignment]
    assert imagine.retrieved(judge, right, words, np.arange(40)).mean() == 1
