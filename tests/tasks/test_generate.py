"""Images from noise: by three kinds of networks, the same bytes for the same seed."""

from __future__ import annotations

from pathlib import Path

import generators
import numpy as np
import pytest
import torch
from PIL import Image

from velatura import Generate, InputError, ModelError
from velatura.catalog import load
from velatura.nets.lapgan import LAPGAN
from velatura.tasks.generate import Latents, generate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    generators.save(place)
    return place


@pytest.fixture(params=["dcgan", "vae", "lapgan"])
def task(request: pytest.FixtureRequest, folder: Path) -> Generate:
    return Generate.from_pretrained(folder / f"{request.param}.safetensors")


@pytest.fixture
def lapgan(folder: Path) -> Generate:
    return Generate.from_pretrained(folder / "lapgan.safetensors")


def pixels(made) -> list[bytes]:
    return [picture.pixels.tobytes() for picture in made.pictures]


def test_the_same_seed_gives_the_same_bytes_alone_and_among_others(task: Generate):
    made = task(4, seed=7)
    assert len({*pixels(made)}) == 4
    assert pixels(task(2, seed=7)) == pixels(made)[:2]
    assert pixels(task(1, seed=8)) != pixels(made)[:1]
    # One latent of the four, alone.
    one = Latents(made.latents.model, made.latents.values[3:], _some(made.latents.classes, slice(3, None)))
    assert pixels(task(latents=one)) == pixels(made)[3:]


def _some(values: np.ndarray | None, chosen: slice) -> np.ndarray | None:
    return None if values is None else values[chosen]


def test_images_are_what_the_network_makes(lapgan: Generate, folder: Path):
    made = lapgan(1, seed=3)
    net = load(folder / "lapgan.safetensors", {"LAPGAN": LAPGAN})
    z, label = torch.from_numpy(made.latents.values), torch.from_numpy(made.latents.classes)
    expected = (255 * net.sample(z, label).clamp(0, 1)).round().byte()[0].permute(1, 2, 0)
    assert np.abs(made.pictures[0].pixels.astype(int) - expected.numpy()).max() <= 1
    assert made.images[0].size == (32, 32)
    assert made.made_by == "lapgan"


def test_grey_models_make_grey_images(folder: Path):
    made = generate(folder / "vae.safetensors", 5)
    assert made.images[0].mode == "L"
    grid = made.grid.pixels
    assert grid.shape == (64, 96, 1)
    assert np.array_equal(grid[:32, 32:64], made.pictures[1].pixels)
    assert grid[32:, 64:].max() == 0


def test_truncation_goes_to_the_mean(task: Generate):
    full, half, none = (task(2, seed=1, truncation=share) for share in (1, 0.5, 0))
    np.testing.assert_allclose(half.latents.values, 0.5 * full.latents.values)
    assert not none.latents.values.any()
    if full.latents.classes is None:
        assert len({*pixels(none)}) == 1


def test_an_interpolation_has_its_ends(task: Generate):
    made = task(3, seed=5)
    between = task(seed=5, interpolate=(0, 2), frames=4)
    assert len(between.pictures) == 4
    np.testing.assert_allclose(between.latents.values[[0, -1]], made.latents.values[[0, 2]], atol=1e-5)
    lengths = np.linalg.norm(between.latents.values, axis=1)
    assert lengths.min() > 0.9 * min(lengths[0], lengths[-1])  # on the sphere, where a line would pass within
    still = task(seed=5, interpolate="1,1", frames=2)
    assert pixels(still)[0] == pixels(still)[1]


def test_latents_are_saved_and_loaded(task: Generate, tmp_path: Path):
    made = task(3, seed=5)
    path = made.latents.save(tmp_path / "latents.safetensors")
    assert pixels(task(latents=path)) == pixels(made)
    assert pixels(task(2, latents=path)) == pixels(made)[:2]
    with pytest.raises(InputError, match="exists; --overwrite"):
        made.latents.save(path)
    with pytest.raises(InputError, match="image 3 \\(from 0\\) is not among them"):
        task(4, latents=path)


def test_latents_of_another_model_are_refused(folder: Path, tmp_path: Path):
    path = generate(folder / "dcgan.safetensors").latents.save(tmp_path / "latents.safetensors")
    with pytest.raises(InputError, match="latents are of dcgan, 6 numbers each; expected those of vae, 6 numbers"):
        generate(folder / "vae.safetensors", latents=path)
    for wrong in (folder / "vae.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(InputError, match="holds no latents"):
            Latents.load(wrong)


def test_classes(lapgan: Generate):
    assert lapgan.classes == ("forest", "sea")
    drawn = lapgan(16, seed=1).latents.classes
    assert drawn is not None
    assert set(drawn) == {0, 1}
    seas = lapgan(3, seed=1, class_name="sea")
    assert np.array_equal(np.asarray(seas.latents.classes), [1, 1, 1])
    assert pixels(seas) != pixels(lapgan(3, seed=1, class_name="forest"))
    with pytest.raises(InputError, match="unknown class 'see'; did you mean 'sea'"):
        lapgan(1, class_name="see")


def test_many_draws_of_one_coarse_image(lapgan: Generate):
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 255, (48, 60, 3), np.uint8)
    made = lapgan(3, seed=1, class_name="sea", coarse=photo)
    assert len({*pixels(made)}) == 3
    assert pixels(lapgan(1, seed=1, class_name="sea", coarse=photo[:, 6:54])) == pixels(made)[:1]  # its middle
    assert pixels(lapgan(1, seed=1, class_name="sea", coarse=255 - photo)) != pixels(made)[:1]
    with pytest.raises(InputError, match="has 6x6; expected 8x8"):
        lapgan(1, coarse=photo[:6, :6])


def test_what_only_some_models_have(folder: Path):
    dcgan = Generate.from_pretrained(folder / "dcgan.safetensors")
    with pytest.raises(InputError, match="--from wants a LAPGAN"):
        dcgan(1, coarse=np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="dcgan knows no classes"):
        dcgan(1, class_name="sea")
    with pytest.raises(ModelError, match="holds a "):
        generate("srresnet")
    with pytest.raises(InputError, match="option 'count'"):
        dcgan(0)


def test_files(folder: Path, tmp_path: Path):
    made = generate(folder / "dcgan.safetensors", 3, seed=2)
    paths = made.save(tmp_path / "new")
    assert [path.name for path in paths] == ["0000.png", "0001.png", "0002.png"]
    assert np.array_equal(np.asarray(Image.open(paths[1])), made.pictures[1].pixels)
    assert b"trainedAlgorithmicMedia" in paths[0].read_bytes().replace(b"With", b"").replace(b"Trained", b"trained")
    with pytest.raises(InputError):
        made.save(tmp_path / "new")
    film = made.save_animation(tmp_path / "film.webp")
    with Image.open(film) as image:
        assert image.n_frames == 4  # there and back
    with pytest.raises(InputError, match=r"end in \.webp"):
        made.save_animation(tmp_path / "film.png")


def test_images_are_enlarged(folder: Path):
    made = generate(folder / "dcgan.safetensors", 2, seed=2, upscale=2)
    assert made.images[0].size == (64, 64)
    assert made.grid.pixels.shape == (64, 128, 3)


def test_progress(lapgan: Generate):
    seen = []
    lapgan(3, progress=lambda *args: seen.append(args))
    assert seen == [(1, 3, "generating"), (2, 3, "generating"), (3, 3, "generating")]


def test_what_images_are_drawn_on_is_never_replaced(lapgan: Generate, tmp_path: Path):
    photo = tmp_path / "0000.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 40, 3), np.uint8)).save(photo)
    before = photo.read_bytes()
    made = lapgan(1, coarse=photo)
    with pytest.raises(InputError, match="input"):
        made.save(tmp_path, overwrite=True)
    assert photo.read_bytes() == before
