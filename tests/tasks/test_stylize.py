import copy
import re
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from stylers import save

import velatura
from velatura import Cancelled, InputError, ModelError, Stylize
from velatura.image import LUMA, Picture
from velatura.task import SaveOptions, parse_params
from velatura.tasks import stylize as module
from velatura.tasks.stylize import StylizeParams, with_colours_of


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def task(file):
    return Stylize(file, device="cpu")


@pytest.fixture(scope="module")
def photo():
    """Face, hair, edges: 44 rows, 50 columns."""
    return np.ascontiguousarray(data.astronaut()[90:134, 190:240])


@pytest.fixture(scope="module")
def style():
    return np.ascontiguousarray(data.coffee()[100:164, 200:280])


def levels(a, b):
    """The largest difference, in grey levels of 255."""
    return np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()


# --- one pass ---------------------------------------------------------------------------------------------------------


def test_a_style_changes_the_photograph(task, photo, style):
    made = task(photo, style)
    assert made.image.shape == photo.shape
    assert made.image.dtype == np.uint8
    assert np.abs(made.image.astype(float) - photo).mean() > 10
    assert made.style.shape == (100,)
    assert made.made_by == "styler"
    assert levels(made.image, task(photo, 255 - style).image) > 5


def test_it_is_deterministic_and_leaves_inputs_alone(task, photo, style):
    before = photo.copy(), style.copy()
    assert np.array_equal(task(photo, style).image, task(photo, style).image)
    assert np.array_equal(photo, before[0])
    assert np.array_equal(style, before[1])


def test_strength(task, photo, style):
    assert np.array_equal(task(photo, style, strength=0).image, photo)
    near, far = (np.abs(task(photo, style, strength=one).image.astype(float) - photo).mean() for one in (0.01, 1))
    assert near < 0.3 * far


def test_content_as_its_own_style_stays(task, photo):
    assert levels(task(photo, photo).image, photo) <= 1


def test_saved_styles(task, photo, style, tmp_path):
    saved = tmp_path / "style.safetensors"
    made = task(photo, style, style_out=str(saved))
    again = task(photo, saved)
    assert np.array_equal(made.image, again.image)
    assert np.array_equal(made.style, again.style)
    with pytest.raises(InputError, match="exists"):
        task(photo, style, style_out=str(saved))
    with pytest.raises(InputError, match="histogram needs the style's picture"):
        task(photo, saved, keep_color="histogram")
    with pytest.raises(InputError, match="serves --method fast only"):
        task(photo, saved, method="optimize", steps=1)
    other = Stylize(save(tmp_path, "other", seed=1))
    with pytest.raises(ModelError, match="another model"):
        other(photo, saved)
    with pytest.raises(ModelError, match="holds no style"):
        task(photo, tmp_path / "other.safetensors")


def test_several_styles(task, photo, style):
    styles = [style, 255 - style]
    one, two = (task.style_vector(each) for each in styles)
    mixed = task(photo, styles, weights=(3, 1))
    np.testing.assert_allclose(mixed.style, 0.75 * one + 0.25 * two, atol=1e-5)
    assert np.array_equal(task(photo, styles, weights="1,0").image, task(photo, style).image)
    np.testing.assert_allclose(task(photo, styles).style, (one + two) / 2, atol=1e-5)
    for weights, words in {(1, 1, 1): "got 3 weights for 2 styles", (0, 0): "no finite sum over 0"}.items():
        with pytest.raises(InputError, match=words):
            task(photo, styles, weights=weights)
    with pytest.raises(InputError, match="got no style"):
        task(photo, [])


def test_style_scale(task, style):
    """A larger pattern is another style; of a picture that is larger than what the network was trained on, too."""
    large = style.repeat(8, 0).repeat(8, 1)
    vectors = [task.style_vector(large, style_scale=scale) for scale in (0.5, 1, 2)]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in pairwise(vectors))
    small = [task.style_vector(style, style_scale=scale) for scale in (0.1, 1, 2)]
    assert all(np.isfinite(one).all() for one in small)
    assert np.abs(small[1] - small[2]).max() > 1e-3


def test_luminance_alone(task, photo, style):
    made = task(photo.astype(np.float32) / 255, style, keep_color="luminance").image
    colour = made - made @ np.array(LUMA, np.float32)[:, None]
    original = photo / 255 - (photo / 255) @ np.array(LUMA)[:, None]
    inside = ((made > 0) & (made < 1)).all(-1)  # what is not cut off
    assert inside.mean() > 0.3
    assert np.abs((colour - original)[inside]).max() < 1e-5
    assert np.abs(made - photo / 255).mean() > 0.02


def test_colours_of_another(photo, style):
    made = with_colours_of(Picture(style), Picture(photo)).pixels.reshape(-1, 3)
    target = photo.reshape(-1, 3) / 255
    # But for what is cut off at black and white.
    assert np.abs(made.mean(0) - target.mean(0)).max() < 0.03
    assert np.abs(np.cov(made.T) - np.cov(target.T)).max() < 0.02


def test_histogram_keeps_the_photographs_colours(task, photo, style):
    """The style that the network sees has the photograph's colours."""
    recoloured = with_colours_of(Picture(style), Picture(photo))
    expected = task.style_vector(recoloured.pixels)
    np.testing.assert_allclose(task(photo, style, keep_color="histogram").style, expected, atol=1e-5)


def test_a_single_pixel_has_a_colour_too(photo, style):
    made = with_colours_of(Picture(style[:1, :1]), Picture(photo))
    np.testing.assert_allclose(made.pixels[0, 0], photo.mean((0, 1)) / 255, atol=0.01)
    assert np.isfinite(with_colours_of(Picture(style), Picture(photo[:1, :1])).pixels).all()


@pytest.mark.parametrize("beside", ["out", "style_out", "curve"])
def test_no_style_is_ever_written(task, photo, style, tmp_path, beside):
    names = {name: str(tmp_path / f"{name}.png") for name in ("content", "first", "second", "out")}
    Image.fromarray(photo).save(names["content"])
    for name in ("first", "second"):
        Image.fromarray(style).save(names[name])
    asked = {"also": (names["second"],)} | ({} if beside == "out" else {beside: names["second"]})
    out = names["second"] if beside == "out" else names["out"]
    before = (tmp_path / "second.png").read_bytes()
    with pytest.raises(InputError, match=r"input|never"):
        task.to_file(names["content"], names["first"], out=out, save=SaveOptions(overwrite=True), **asked)
    assert (tmp_path / "second.png").read_bytes() == before


def test_mask(task, photo, style):
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[:, 20:], mask[:, 19] = 255, 128
    made, whole = task(photo, style, mask).image, task(photo, style).image
    assert np.array_equal(made[:, :19], photo[:, :19])
    assert np.array_equal(made[:, 20:], whole[:, 20:])
    assert levels(made[:, 19], (photo[:, 19] * (127 / 255) + whole[:, 19] * (128 / 255))) <= 1
    with pytest.raises(InputError, match="mask is 50x10; expected the photograph's 50x44"):
        task(photo, style, mask[:10])


# --- odd images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 1, 3), (5, 3, 3), (3, 900, 3), (900, 3, 3), (40, 48), (40, 48, 4), (40, 48, 2)], ids=str
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_odd_images(task, style, shape, dtype):
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    image = (np.random.default_rng(0).random(shape) * white).astype(dtype)
    made = task(image, style).image
    assert made.dtype == dtype
    colours = made[..., :3] if made.shape[-1] == 4 else made
    assert made.shape[:2] == shape[:2]
    assert colours.shape[-1] == 3
    assert np.isfinite(made).all()
    assert 0.02 * white < colours.mean() < 0.98 * white
    if len(shape) == 3 and shape[2] in (2, 4):
        assert np.array_equal(made[..., -1], image[..., -1])


@pytest.mark.parametrize("colour", [0, 90, 255])
def test_flat_images_stay_flat(task, photo, style, colour):
    """No checkerboard, no frame, no amplified nothing; also in bands."""
    for made in (
        task(np.full((50, 61, 3), colour, np.uint8), style).image,
        task(photo, np.full_like(photo, colour)).image,
    ):
        assert np.isfinite(made).all()
    made = task(np.full((50, 61, 3), colour, np.uint8), style).image
    assert (made == made[0, 0]).all()


def test_grey_stays_grey_if_only_light_is_painted(task, photo, style):
    grey = photo[..., 1]
    made = task(grey, style, keep_color="luminance").image
    assert made.shape == grey.shape
    assert levels(made, grey) > 5


def test_colours_that_nobody_sees_do_not_matter(task, photo, style):
    alpha = np.full((*photo.shape[:2], 1), 255, np.uint8)
    alpha[10:30, 10:30] = 0
    images = []
    for hidden in (0, 255):
        image = np.concatenate([photo, alpha], 2)
        image[10:30, 10:30, :3] = hidden
        images.append(task(image, style).image)
    seen = alpha[..., 0] > 0
    assert np.array_equal(images[0][seen], images[1][seen])


def test_sixteen_bits_are_more_than_eight(task, photo, style):
    fine = task(photo.astype(np.uint16) * 257, style).image
    # Half precision makes of a hair's breadth in the input a level in the output.
    assert np.abs(fine / 257 - task(photo, style).image).mean() < 0.6
    assert len(np.unique(fine)) > 300


# --- large photographs ------------------------------------------------------------------------------------------------


@pytest.fixture
def large(monkeypatch):
    """A photograph that counts as large, and limits to match."""
    monkeypatch.setattr(module, "WHOLE", 64 * 64)
    return np.ascontiguousarray(data.astronaut()[50:200, 100:301])


def test_bands_equal_the_whole(file, large, style):
    thin = Stylize(file, device="cpu", memory=0.1)(large, style).image
    whole = Stylize(file, device="cpu", memory=4096)(large, style).image
    assert levels(thin, whole) <= 1


def test_statistics_of_the_shrunken_photograph_are_near_its_own(task, large, style, monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 128 * 128)
    shrunk = task(large, style).image.astype(float)
    monkeypatch.setattr(module, "WHOLE", 10**9)
    whole = task(large, style).image
    assert 0 < np.abs(shrunk - whole).mean() < 0.3 * np.abs(whole.astype(float) - large).mean()


def test_narrow_panorama(file, style, monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 64 * 64)
    made = Stylize(file, memory=0.05)(np.random.default_rng(0).integers(0, 256, (9, 3000, 3), np.uint8), style).image
    assert made.shape == (9, 3000, 3)


def test_file_to_file(task, photo, style, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(style).save(tmp_path / "style.png")
    task.to_file(tmp_path / "photo.png", tmp_path / "style.png", out=tmp_path / "out.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), task(photo, style).image)


# --- optimisation -----------------------------------------------------------------------------------------------------


def test_optimize(task, photo, style, tmp_path):
    made = task(
        photo, style, method="optimize", steps=4, frames=str(tmp_path / "steps"), every=2, curve=str(tmp_path / "c.svg")
    )
    assert made.image.shape == photo.shape
    assert made.curve.total[-1] < made.curve.total[0]
    assert made.made_by == "style-features"
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["step-00002.png", "step-00004.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "steps/step-00004.png")), made.image)
    assert (tmp_path / "c.svg").read_text().startswith("<svg")
    again = task(photo, style, method="optimize", steps=4)
    assert np.array_equal(made.image, again.image)
    half = task(photo, style, method="optimize", steps=4, strength=0.5).image
    assert levels(half, (made.image.astype(float) + photo) / 2) <= 1


@pytest.mark.parametrize("start", ["noise", "fast"])
def test_starts(task, photo, style, start):
    made = task(photo, style, method="optimize", steps=2, start=start)
    assert made.curve.content[0] > 0.01
    assert np.array_equal(made.image, task(photo, style, method="optimize", steps=2, start=start).image)


def test_optimize_at_a_smaller_size(task, photo, style):
    made = task(photo, style, method="optimize", steps=1, size=40)
    assert made.curve.sizes == [(35, 40)]
    assert made.image.shape == photo.shape


def test_optimize_tiny_and_long(task, style):
    for shape in ((1, 1, 3), (3, 70, 3)):
        made = task(np.full(shape, 100, np.uint8), style, method="optimize", steps=2).image
        assert made.shape == shape


def test_layers_are_read(task, photo, style):
    params = parse_params(StylizeParams, {"style_layers": "stride1,stride2=0.5"})
    assert params.style_layers == {"stride1": 1.0, "stride2": 0.5}
    with pytest.raises(InputError, match="unknown layer 'conv9'"):
        task(photo, style, method="optimize", style_layers="conv9")


# --- before the work, and beside the result ---------------------------------------------------------------------------


def calls_of(calls):
    return lambda *call: calls.append(call)


def test_a_result_that_no_format_holds_is_refused_before_the_steps(task, style, tmp_path):
    calls = []
    wide = np.zeros((1, 66_000, 3), np.uint8)
    with pytest.raises(InputError, match=r"out\.jpg.*66000"):
        task.to_file(
            wide, style, out=tmp_path / "out.jpg", method="optimize", steps=2, size=32, progress=calls_of(calls)
        )
    assert not calls
    assert not list(tmp_path.iterdir())


def test_what_stands_beside_the_result_comes_after_it_and_whole(task, photo, style, tmp_path):
    vector = tmp_path / "style.safetensors"

    def stop(done, total, stage):
        if done:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        task.to_file(photo, style, out=tmp_path / "out.png", style_out=str(vector), progress=stop)
    assert not list(tmp_path.iterdir())
    curve = tmp_path / "c.svg"
    with pytest.raises(Cancelled):
        task.to_file(
            photo, style, out=tmp_path / "out.png", method="optimize", steps=1, curve=str(curve), progress=stop
        )
    assert not list(tmp_path.iterdir())
    task.to_file(photo, style, out=tmp_path / "out.png", style_out=str(vector))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "style.safetensors"]


def test_a_style_is_saved_at_any_strength(task, photo, style, tmp_path):
    vector = tmp_path / "style.safetensors"
    made = task(photo, style, strength=0, style_out=str(vector))
    assert np.array_equal(made.image, photo)
    assert np.array_equal(task(photo, vector).image, task(photo, style).image)
    with pytest.raises(InputError, match="strength over 0"):
        task(photo, style, strength=0, method="optimize", curve=str(tmp_path / "c.svg"))


def test_the_limit_of_a_call_counts_for_styles_too(task, photo, tmp_path):
    rng = np.random.default_rng(0)
    for name, side in (("small", 20), ("large", 64)):
        Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(tmp_path / f"{name}.png")
    small, large, out = (tmp_path / f"{name}.png" for name in ("small", "large", "out"))
    for styles, also in ((large, ()), (small, (str(large),))):
        with pytest.raises(InputError, match=r"large\.png.*megapixels"):
            task.to_file(small, styles, out=out, also=also, max_megapixels=0.001)
    raised = Stylize(task._model)
    raised.max_megapixels = 0.001
    raised.to_file(small, large, out=out, max_megapixels=0.01)


@pytest.mark.parametrize("options", [{"keep_color": "histogram"}, {"method": "optimize", "steps": 1, "size": 32}])
def test_a_large_style_is_never_held_in_floats(task, photo, options):
    style = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), np.uint8)
    task(photo, style[:40, :40], **options)  # what is loaded once
    tracemalloc.start()
    task(photo, style, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < style.nbytes * 2.5  # as floats it alone would take four times as much


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"strength": 2}, "option 'strength'"),
        ({"style_layers": "stride1=x"}, "option 'style_layers'"),
        ({"weights": "a,b"}, "option 'weights'"),
        ({"curve": "c.svg"}, "add --method optimize"),
        ({"frames": "steps"}, "add --method optimize"),
        ({"method": "optimize", "curve": "c.png"}, "is an .svg"),
        ({"method": "optimize", "style_out": "s.safetensors"}, "no style vector"),
        ({"style_out": "s.png"}, "saved as .safetensors"),
        ({"style_out": "none/s.safetensors"}, "no such folder"),
        ({"method": "optimize", "features": "vgg19:none.pth"}, "none.pth: no such file"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refusals(task, photo, style, params, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InputError, ModelError), match=re.escape(words)):
        task(photo, style, **params)


def test_unknown_models():
    with pytest.raises(ModelError, match="unknown model"):
        Stylize("style-slow")
    with pytest.raises(ModelError, match="no such file"):
        Stylize("none.safetensors")


def test_public_names(photo, style):
    assert velatura.Stylize is Stylize
    made = velatura.stylize(photo, style, method="optimize", steps=1)
    assert made.image.shape == photo.shape


def test_the_network_stays_as_it_is(task, large, style):
    before = copy.deepcopy(task.network.state_dict())
    task(large, style)
    assert all(torch.equal(value, before[name]) for name, value in task.network.state_dict().items())
