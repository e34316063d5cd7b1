import numpy as np
import pytest
from PIL import Image
from skimage import data

import velatura
from velatura.errors import Cancelled, InputError, ModelError
from velatura.tasks.inpaint import Inpaint, inpaint


@pytest.fixture(scope="module")
def photo():
    return data.brick()[:120, :140]


@pytest.fixture(scope="module")
def color(photo):
    return np.dstack([photo, photo // 2, 255 - photo])


@pytest.fixture(scope="module")
def mask(photo):
    mask = np.zeros(photo.shape, np.uint8)
    mask[50:74, 60:90] = 255
    return mask


@pytest.mark.parametrize("kind", ["grey", "color", "16 bit", "float"])
def test_what_the_mask_leaves_out_stays_bit_for_bit(kind, photo, color, mask):
    image = {
        "grey": photo,
        "color": color,
        "16 bit": color.astype(np.uint16) * 257 + 1,
        "float": (color / 255).astype(np.float32),
    }[kind]
    before = image.copy()
    filled = inpaint(image, mask).image
    assert (filled.shape, filled.dtype) == (image.shape, image.dtype)
    assert np.array_equal(filled[mask == 0], image[mask == 0])
    assert np.array_equal(image, before)
    # Bricks, not a grey patch.
    assert filled[mask > 0].std() > 0.3 * image[mask > 0].std()


def test_what_lies_in_the_hole_is_never_looked_at(color, mask):
    other = np.where(mask[..., None] > 0, 255 - color, color)
    assert np.array_equal(inpaint(color, mask).image, inpaint(other, mask).image)


def test_a_grey_mask_fades_the_fill_in(color, mask):
    half, whole = inpaint(color, mask // 2).image, inpaint(color, mask).image
    mean = color + 127 / 255 * (whole.astype(float) - color)
    assert np.abs(half - mean)[mask > 0].max() <= 0.8  # both are rounded


def test_two_holes_in_one_box_do_not_touch_what_lies_between(color):
    mask = np.zeros(color.shape[:2], np.uint8)
    mask[20:100, 20:28] = mask[20:28, 20:110] = 255  # an L
    mask[60:80, 70:90] = 255  # within its box
    filled = inpaint(color, mask).image
    assert np.array_equal(filled[mask == 0], color[mask == 0])
    assert not np.array_equal(filled[60:80, 70:90], color[60:80, 70:90])


def test_box_color_and_transparency_say_the_same(color, mask):
    expected = inpaint(color, mask).image
    assert np.array_equal(inpaint(color, box=(60, 50, 30, 24)).image, expected)
    assert np.array_equal(inpaint(color, box="60,50,30,24").image, expected)
    clear = np.dstack([color, 255 - mask])
    filled = inpaint(clear).image
    assert (filled[..., 3] == 255).all()
    assert np.array_equal(filled[..., :3], expected)
    painted = color.copy()
    painted[50:74, 60:90] = (250, 5, 250)  # not quite, as a lossy file has it
    found = inpaint(painted, mask_color="#ff00ff").image
    assert not (np.abs(found.astype(int) - (250, 5, 250)) < 20).all(-1).any()


def test_a_box_may_reach_over_the_border(color):
    filled = inpaint(color, box=(-10, 100, 40, 50)).image
    changed = (filled != color).any(-1)
    assert changed[100:, :30].any()
    changed[100:, :30] = False
    assert not changed.any()


def test_colours_that_nobody_sees_are_no_source(color, mask):
    opacity = np.full(mask.shape, 255, np.uint8)
    opacity[:, :40] = 0
    images = [np.dstack([np.where(opacity[..., None] > 0, color, value), opacity]) for value in (0, 255)]
    first, second = (inpaint(image, mask).image for image in images)
    assert np.array_equal(first[mask > 0], second[mask > 0])
    assert (first[..., 3] == opacity).all()


def test_what_is_seen_may_be_far_away():
    photo = np.zeros((180, 180, 4), np.uint8)
    photo[:20] = (200, 100, 50, 255)
    filled = inpaint(photo, box=(150, 150, 10, 10)).image[150:160, 150:160]
    assert (np.abs(filled - (200.0, 100, 50, 255)) < 3).all()


def test_a_grey_image_is_painted_in_grey(photo):
    with pytest.raises(InputError, match="the image is grey, and #ff00ff is a colour"):
        inpaint(photo, mask_color="#ff00ff")
    painted = photo.copy()
    painted[50:60, 40:50] = 255
    assert (inpaint(painted, mask_color="ffffff").image[50:60, 40:50] < 255).any()


def test_the_seed_decides(color, mask):
    first = inpaint(color, mask, seed=3).image
    assert np.array_equal(first, inpaint(color, mask, seed=3).image)
    assert not np.array_equal(first, inpaint(color, mask, seed=4).image)


def test_the_kind_that_comes_in_comes_out(color, mask):
    result = inpaint(Image.fromarray(color), Image.fromarray(mask))
    assert isinstance(result.image, Image.Image)
    assert result.made_by is None


def test_from_file_to_file(color, mask, tmp_path):
    Image.fromarray(color).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    task = velatura.Inpaint.from_pretrained()
    task.to_file(tmp_path / "photo.png", tmp_path / "mask.png", out=tmp_path / "out.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), inpaint(color, mask).image)


@pytest.mark.parametrize(
    ("given", "options", "complaint"),
    [
        (None, {}, r"no hole to fill: give a mask, a box \(--box X,Y,W,H\) or a colour"),
        ("empty", {}, "nothing to fill: no pixel of the mask is white"),
        ("full", {}, "nothing is left to fill from"),
        ("small", {}, "mask is 70x60, image 140x120; expected the same size"),
        (None, {"box": (140, 0, 5, 5)}, "box 140,0,5,5 covers nothing of the image, which is 140x120"),
        (None, {"box": (0, 0, 0, 5)}, "covers nothing"),
        (None, {"box": "1,2,3"}, "option 'box': got '1,2,3'; expected X,Y,W,H"),
        (None, {"mask_color": "red"}, "expected a colour such as ff00ff"),
        (None, {"mask_color": "#010203"}, "nothing to fill"),
        (None, {"boxes": 1}, "unknown option 'boxes'; did you mean 'box'"),
    ],
)
def test_refusals(color, given, options, complaint):
    masks = {
        None: None,
        "empty": np.zeros((120, 140), np.uint8),
        "full": np.full((120, 140), 255, np.uint8),
        "small": np.full((60, 70), 255, np.uint8),
    }
    with pytest.raises(InputError, match=complaint):
        inpaint(color, masks[given], **options)


def test_unknown_models_are_refused():
    with pytest.raises(ModelError, match="unknown model 'vae'; expected auto, texture"):
        Inpaint.from_pretrained("vae")


def test_it_can_be_stopped(color, mask):
    def stop(done, total, stage):
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        inpaint(color, mask, progress=stop)
