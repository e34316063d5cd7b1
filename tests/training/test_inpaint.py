import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from scipy.stats import multivariate_normal

from velatura.errors import InputError
from velatura.metrics.fidelity import RGB, psnr
from velatura.nets.dcgan import Generator
from velatura.nets.masked_encoder import MaskedEncoder, Posterior
from velatura.ops import masks, poisson
from velatura.training import checkpoint, export, recipes
from velatura.training.loop import Training, train
from velatura.training.recipe import make_config
from velatura.training.recipes import inpaint

FOLDER = Path(inpaint.__file__).parent
SMALL = ["size=32", "width=4", "batch_size=4", "threads=1", "log_every=1", "warmup=0", "precision=32-true"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    torch.manual_seed(0)
    arguments = {"latent": 4, "channels": 3, "size": 32, "width": 4}
    path = tmp_path_factory.mktemp("generator") / "small.safetensors"
    header = {"architecture": "Generator", "arguments": arguments}
    export.export_weights(dict(Generator(**arguments).state_dict()), path, header, torch.float32)
    return path


@pytest.fixture
def make(generator, photographs):
    def make_recipe(*more):
        settings = [*SMALL, f"photographs={photographs}", f"generator={generator}", *more]
        return inpaint.TrainEncoder(make_config(inpaint.EncoderConfig, settings=settings))

    return make_recipe


def training_of(recipe):
    fabric = Fabric(accelerator="cpu")
    fabric.launch()
    return Training(fabric, recipe.networks, recipe.optimizers(), clip=0.0)


@pytest.mark.parametrize("name", ["dcgan-faces-encoder", "dcgan-brain-encoder"])
def test_settings_fit_their_recipe(name):
    config = make_config(inpaint.EncoderConfig, FOLDER / f"{name}.toml")
    assert name.startswith(config.generator)
    assert config.generator.endswith(config.subject)


# --- losses and figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_joining_equals_poisson(seed):
    """`velatura.ops.poisson` solves it by multigrid."""
    rng = np.random.default_rng(seed)
    mask = masks.random_hole(32, 32, rng)
    fills, images = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)).unbind(0)
    # Little contrast, so that nothing is clipped.
    fills, images = 0.4 + 0.1 * fills, 0.4 + 0.1 * images
    joined = inpaint.join(fills, images, mask)
    for fill, image, found in zip(fills, images, joined, strict=True):
        correction = poisson.membrane((image - fill).double().numpy(), mask > 0.5, tolerance=1e-9)
        np.testing.assert_allclose(found, np.where(mask > 0.5, fill.numpy() + correction, image.numpy()), atol=1e-5)
        assert torch.equal(found[:, mask < 0.5], image[:, mask < 0.5])


def test_an_even_shift_is_repaired():
    image, mask = torch.rand(1, 3, 32, 32), torch.from_numpy(masks.centre_square(32, 32))[None, None]
    fill, seen = inpaint.fill_losses(image + 0.1, image, mask)
    assert float(fill) == pytest.approx(0.5 * math.log(inpaint.LEAST), abs=0.01)
    assert float(seen) == pytest.approx(0.5 * math.log(0.01 + inpaint.LEAST), abs=1e-3)


def test_errors_where_pixels_are_known_do_not_count_in_the_hole():
    image, mask = torch.rand(1, 3, 32, 32), torch.from_numpy(masks.centre_square(32, 32))[None, None]
    error = 0.2 * torch.randn(1, 3, 32, 32)
    far = torch.zeros_like(mask)
    far[..., :4, :4] = 1
    one, two = (inpaint.fill_losses(image + e, image, mask)[0] for e in (error, error + 0.3 * far))
    assert float(one) == pytest.approx(float(two), abs=0.01)


def test_log_error_over_the_mask():
    error, mask = torch.randn(2, 3, 8, 8), (torch.rand(2, 1, 8, 8) < 0.5).float()
    inside = [error[i][:, mask[i, 0] > 0] for i in range(2)]
    expected = torch.stack([0.5 * (each.square().mean() + inpaint.LEAST).log() for each in inside])
    torch.testing.assert_close(inpaint.log_error(error, mask), expected)


def test_likelihood_is_that_of_scipy():
    posterior, z = Posterior(torch.randn(1, 3), torch.randn(1, 3)), torch.randn(1, 3)
    expected = multivariate_normal.logpdf(
        z[0].numpy(), posterior.mean[0].numpy(), np.diag(posterior.log_variance[0].exp().numpy())
    )
    found = float(inpaint.likelihood(posterior, z).sum()) - 1.5 * math.log(2 * math.pi)
    assert found == pytest.approx(expected, rel=1e-4)


def test_content_sees_what_joining_makes():
    def features(image, layers):
        return dict.fromkeys(layers, image)

    class Pixels(torch.nn.Module):
        forward = staticmethod(features)

    image, mask = torch.rand(1, 1, 32, 32), torch.from_numpy(masks.centre_square(32, 32))[None, None]
    filled = image + 0.1 * torch.randn_like(image)
    expected = inpaint.unrepaired(filled - image, mask).square().mean()
    found = inpaint.content(Pixels(), filled, image, mask, {"a": 1.0})
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        inpaint.content(Pixels(), filled, image, None, {"a": 2.0}), 2 * (filled - image).square().mean()
    )


def test_nearest_looks_at_known_pixels_alone():
    train = torch.rand(5, 3, 16, 16)
    mask = torch.from_numpy(masks.half(16, 16, "left"))[None, None].repeat(2, 1, 1, 1)
    images = torch.stack([train[3], train[1].flip(-1)])
    broken = torch.where(mask > 0, torch.rand_like(images), images)
    assert torch.equal(inpaint.nearest(broken, mask, train), images)


def test_figures_are_psnr_of_whole_pictures():
    """Known pixels in place, and the mean of four sides for halves."""
    images = torch.rand(8, 3, 32, 32)
    grey = torch.full_like(images, 0.5)
    figures = inpaint.fill_psnr(lambda part, planes: grey[: len(part)], images)
    scores = inpaint.evaluate(lambda part, planes: grey[: len(part)], images, images)

    def expected(kind):
        values = []
        for image in images:
            for mask in inpaint.holes(32, kind):
                filled = np.where(mask > 0.5, 0.5, image.numpy())
                eight = [np.rint(255 * x).astype(np.uint8).transpose(1, 2, 0) for x in (filled, image.numpy())]
                values.append(psnr(*eight, RGB))
        return np.mean(values)

    for kind in ("centre", "half"):
        assert figures[f"plain_{kind}"] == pytest.approx(expected(kind), abs=1e-3)
        assert scores["rows"][kind]["plain"][0] == pytest.approx(expected(kind), abs=1e-3)
        # The nearest training picture is the picture itself.
        assert scores["rows"][kind]["nearest"][0] > 60
    assert set(scores["rows"]) == set(inpaint.KINDS)
    assert "centre" in inpaint.table(scores)
    assert inpaint.holes(64, "centre")[0].sum() == 32 * 32
    assert inpaint.holes(64, "random")[0].mean() == pytest.approx(0.8, abs=0.02)


# --- the encoder's recipe ---------------------------------------------------------------------------------------------


def test_a_resumed_run_equals_an_unbroken_one(make, tmp_path):
    settings = ["steps=3", "held_out_every=10"]
    train(make(*settings), tmp_path / "unbroken", quiet=True)
    train(make(*settings), tmp_path / "broken", max_minutes=1e-9, quiet=True)
    train(make(*settings), tmp_path / "broken", resume=True, quiet=True)
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / name))[0] for name in ("unbroken", "broken"))
    assert set(one) >= {"encoder", "average"}
    for part, tensors in one.items():
        assert all(torch.equal(tensor, two[part][name]) for name, tensor in tensors.items()), part
    sheet = next((tmp_path / "unbroken" / "sheets").glob("*.png"))
    assert sheet.stat().st_size > 1000


def test_it_learns_to_tell_latents_and_the_generator_stays(make):
    recipe = make("made=1", "learning_rate=3e-3", "batch_size=16", "matrix_rate=0.01")
    before = {name: value.clone() for name, value in recipe.generator.state_dict().items()}
    training, told = training_of(recipe), []
    for step in range(20):
        told.append(float(recipe.step(training, recipe.batch(step, 0), step)["told"]))
    assert np.mean(told[-4:]) < np.mean(told[:4])
    assert all(torch.equal(value, before[name]) for name, value in recipe.generator.state_dict().items())


def test_photographs_alone(make):
    recipe = make("made=0")
    image, mask, z = recipe.batch(0, 0)
    assert (len(image), len(mask), len(z)) == (4, 4, 0)
    assert set(recipe.step(training_of(recipe), (image, mask, z), 0)) == {"fill", "seen"}


def test_batches_follow_from_seed_and_step(make):
    one, two = make().batch(5, 0), make().batch(5, 0)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], make().batch(6, 0)[0])


def test_export_keeps_no_path(make, tmp_path, generator):
    train(make("steps=1", "held_out_every=10"), tmp_path / "run", quiet=True)
    export.export_run(tmp_path / "run", tmp_path / "encoder.safetensors", metrics={})
    from velatura.catalog import load, read_header

    header = read_header(tmp_path / "encoder.safetensors")
    assert header.recipe["settings"]["generator"] == "small.safetensors"
    assert str(tmp_path) not in str(header.recipe)
    assert isinstance(load(tmp_path / "encoder.safetensors", {"MaskedEncoder": MaskedEncoder}), MaskedEncoder)


def test_another_size_than_the_generators_is_refused(make):
    with pytest.raises(InputError, match="makes 32x32 pixels of 3 channels, not 48x48"):
        make("size=48")


def test_recipes_are_known():
    for name in ("dcgan-faces-encoder", "dcgan-brain-encoder"):
        file, recipe, config = recipes.RECIPES[name]
        assert file == "inpaint"
        assert hasattr(inpaint, recipe)
        assert hasattr(inpaint, config)
