"""Restoration with small networks of random numbers: what it promises whatever the weights."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from restorers import THRESHOLD, make, ship
from skimage import data

import velatura
from velatura import InputError, ModelError, Restore, catalog, face_refinement, restore
from velatura.image import ImageWarning
from velatura.ops.degrade import UNFADED
from velatura.ops.fading import undone
from velatura.restoration import estimate
from velatura.tasks import restore as module


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """All four networks in the catalog."""
    with pytest.MonkeyPatch.context() as patch:
        yield ship(tmp_path_factory.mktemp("models"), patch)
    catalog._read_catalog.cache_clear()


@pytest.fixture(scope="module")
def task(shipped):
    return Restore()


@pytest.fixture(scope="module")
def photo():
    """Face, hair, edges: 70 rows, 90 columns."""
    return np.ascontiguousarray(data.astronaut()[80:150, 180:270])


@pytest.fixture(scope="module")
def mask(photo):
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[10:14, 5:60] = 255
    return mask


def levels(a, b):
    """The largest difference, in the images' own units."""
    return np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()


def clear(photo):
    """With alpha; a part is quite transparent."""
    alpha = np.full(photo.shape[:2], 255, np.uint8)
    alpha[:, :20], alpha[:20, 40:60] = 0, 100
    return np.dstack([photo, alpha])


KINDS = {
    "colour": lambda photo: photo,
    "grey": lambda photo: photo[..., 1],
    "grey in colour": lambda photo: photo[..., [1, 1, 1]],
    "alpha": clear,
    "16 bit": lambda photo: photo.astype(np.uint16) * 257,
    "float": lambda photo: (photo / 255).astype(np.float32),
}


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_strength_goes_from_the_photograph_bit_for_bit(task, photo, kind):
    image = KINDS[kind](photo)
    before = image.copy()
    none, half, whole = (task(image, strength=strength).image for strength in (0, 0.5, 1))
    np.testing.assert_array_equal(none, image)
    assert whole.dtype == half.dtype == image.dtype
    assert whole.shape == image.shape
    unit = {"16 bit": 257, "float": 1 / 255}.get(kind, 1)
    assert levels(whole, image) > 5 * unit
    assert levels(half, (image.astype(float) + whole) / 2) <= unit
    np.testing.assert_array_equal(image, before)
    assert task(image, strength=0).made_by is None
    assert task(image).made_by == "direct"


def test_sixteen_bits_are_finer_than_eight(task, photo):
    deep = task(KINDS["16 bit"](photo), "off").image
    assert levels(deep / 257, task(photo, "off").image) <= 2
    assert len(np.unique(deep)) > 1000


@pytest.mark.parametrize("model", ["direct", "triplet"])
def test_grey_stays_grey(shipped, photo, model):
    task = Restore(model)
    one, three = (task(KINDS[kind](photo)).image for kind in ("grey", "grey in colour"))
    np.testing.assert_array_equal(three, one[..., None].repeat(3, 2))
    assert levels(task(photo).image[..., 0], task(photo).image[..., 2]) > 5  # colours do not


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (203, 3), (33, 65), (64, 64)])
@pytest.mark.parametrize("model", ["direct", "triplet"])
def test_any_size(shipped, shape, model):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    assert Restore(model)(image, compare=True).image.shape == image.shape


def test_the_same_again(task, photo):
    np.testing.assert_array_equal(task(photo).image, task(photo).image)
    np.testing.assert_array_equal(Restore("direct")(photo).image, task(photo).image)
    np.testing.assert_array_equal(restore(photo).image, task(photo).image)


@pytest.mark.parametrize("model", ["direct", "triplet"])
def test_tiles_give_what_the_whole_gives(shipped, model):
    image = np.ascontiguousarray(data.astronaut()[50:211, 100:337])
    calls = []
    whole = Restore(model)(image, mask_out=True)
    tiled = Restore(model, memory=0.1)(image, mask_out=True, progress=lambda *call: calls.append(call))
    assert len([call for call in calls if call[2] == "restoring"]) == 1 + 3
    assert levels(tiled.image, whole.image) <= 2
    assert (tiled.maps["mask_out"].pixels != whole.maps["mask_out"].pixels).mean() < 1e-3


def test_without_halos_there_would_be_seams(shipped, photo, monkeypatch):
    image = np.ascontiguousarray(data.astronaut()[50:211, 100:337])
    whole = Restore()(image, "off").image
    narrow = Restore(memory=0.1)
    monkeypatch.setattr(narrow.network.network, "receptive_radius", 0)
    assert levels(narrow(image, "off").image, whole) > 2


# --- damage -----------------------------------------------------------------------------------------------------------


def test_the_mask_is_found_over_the_shipped_threshold(task, photo):
    image = torch.from_numpy(photo.transpose(2, 0, 1)[None].copy()) / 255
    with torch.no_grad():
        score = make("scratch-detector")(image)[0, 0].sigmoid().numpy()
    found = task(photo, mask_out=True).maps["mask_out"].pixels[..., 0]
    assert set(np.unique(found)) == {0, 255}
    sure = np.abs(score - THRESHOLD) > 0.02  # half precision
    np.testing.assert_array_equal(found[sure] > 0, score[sure] > THRESHOLD)


def test_more_sensitive_marks_more(task, photo):
    few, usual, many = (
        task(photo, mask_out=True, strength=0, sensitivity=each).maps["mask_out"].pixels > 0 for each in (0, 0.5, 1)
    )
    assert (few <= usual).all()
    assert (usual <= many).all()
    assert few.sum() < usual.sum() < many.sum()
    np.testing.assert_array_equal(usual, task(photo, mask_out=True, strength=0).maps["mask_out"].pixels > 0)


def test_a_mask_given_back_reproduces(task, photo, tmp_path):
    first = task(photo, mask_out=True)
    mask = first.maps["mask_out"].pixels[..., 0]
    assert 0 < (mask > 0).mean() < 1
    again = task(photo, mask, mask_out=True)
    np.testing.assert_array_equal(again.image, first.image)
    np.testing.assert_array_equal(again.maps["mask_out"].pixels[..., 0], mask)
    Image.fromarray(photo).save(tmp_path / "a photo.png")
    task.to_file(tmp_path / "a photo.png", out=tmp_path / "1.png", maps={"mask_out": tmp_path / "mask.png"})
    task.to_file(tmp_path / "a photo.png", tmp_path / "mask.png", out=tmp_path / "2.png")
    for name in ("1.png", "2.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / name)), first.image)


def test_the_mask_counts(task, photo, mask):
    off, given, inverse = (task(photo, one).image for one in ("off", mask, 255 - mask))
    np.testing.assert_array_equal(task(photo, np.zeros_like(mask)).image, off)
    far = np.ones(mask.shape, bool)
    far[:40] = False  # beyond what the network sees from the marks; fading is told without them
    assert levels(task(photo, mask, fading=False).image[far], task(photo, "off", fading=False).image[far]) == 0
    assert levels(given, off) > 1
    assert levels(given, inverse) > 1
    np.testing.assert_array_equal(task(photo, mask > 0).image, given)


def test_a_mask_is_there_for_strength_0_too(task, photo):
    result = task(photo, strength=0, mask_out=True)
    np.testing.assert_array_equal(result.maps["mask_out"].pixels, task(photo, mask_out=True).maps["mask_out"].pixels)


def test_a_mask_of_another_size_is_refused(task, photo, mask):
    with pytest.raises(InputError, match="mask of scratches is 89x70, photograph 90x70; expected the same size"):
        task(photo, mask[:, 1:])


# --- transparency -----------------------------------------------------------------------------------------------------


def test_what_nobody_sees_stays_and_does_not_bleed(task, photo):
    image = clear(photo)
    other = image.copy()
    other[:, :20, :3] = 255 - other[:, :20, :3]
    first, second = task(image, mask_out=True), task(other)
    np.testing.assert_array_equal(first.image[:, :20], image[:, :20])
    np.testing.assert_array_equal(second.image[:, :20], other[:, :20])
    np.testing.assert_array_equal(first.image[:, 20:], second.image[:, 20:])
    np.testing.assert_array_equal(first.image[..., 3], image[..., 3])
    assert not first.maps["mask_out"].pixels[:, :20].any()
    nothing = np.dstack([photo, np.zeros(photo.shape[:2], np.uint8)])
    np.testing.assert_array_equal(task(nothing).image, nothing)


# --- fading -----------------------------------------------------------------------------------------------------------


def test_fading_is_told_once_and_undone_everywhere_alike(task, photo):
    plain = task((photo / 255).astype(np.float32), "off", fading=False).image
    small = (photo / 255).astype(np.float32)
    thumbnail = module.thumbnail(lambda a, b: (small[a:b], np.ones(small[a:b].shape[:2], np.float32)), *small.shape[:2])
    fading = estimate(task.estimator, thumbnail)
    assert fading != UNFADED
    made = task((photo / 255).astype(np.float32), "off").image
    np.testing.assert_allclose(made, undone(plain, fading), atol=1e-5)
    assert levels(made, plain) > 0.05


def test_damage_does_not_tell_fading(task, photo, mask):
    hurt = photo.copy()
    hurt[mask > 0] = (0, 255, 0)
    seen = []
    for image in (photo, hurt):
        work = module._Work(task, velatura.image.open_image(image), task.Params(), lambda *_: None, 512, mask)
        seen.append(work._fading())
    assert seen[0] == seen[1]


def test_the_triplet_undoes_fading_by_itself(shipped, photo):
    task = Restore("triplet")
    assert task(photo).made_by == "triplet"
    for fading in (True, False):
        with pytest.raises(InputError, match="triplet undoes fading by itself"):
            task(photo, fading=fading)


def test_tiny_images_do_not_tell_how_they_faded(task):
    image = np.full((31, 40, 3), 0.6, np.float32)
    np.testing.assert_array_equal(task(image).image, task(image, fading=False).image)


# --- beside the result ------------------------------------------------------------------------------------------------


def test_both_side_by_side(task, photo):
    for kind in ("colour", "alpha", "grey"):
        image = KINDS[kind](photo)
        result = task(image, compare=True)
        sheet = result.maps["compare"].pixels
        assert sheet.shape[:2] == (70, 90 + 8 + 90)
        colours = [on_white(one) for one in (image, result.image)]
        np.testing.assert_array_equal(np.squeeze(sheet[:, :90]), colours[0])
        np.testing.assert_array_equal(np.squeeze(sheet[:, 98:]), colours[1])
        np.testing.assert_array_equal(result.image, task(image).image)


def on_white(image):
    """What is seen on white paper."""
    if image.ndim == 2 or image.shape[2] == 3:
        return image
    share = image[..., 3:] / 255
    return np.rint(255 * (1 - share) + share * image[..., :3]).astype(np.uint8)


def test_the_comparison_has_the_photographs_profile(task, photo):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(photo)
    image.info["icc_profile"] = profile
    assert task(image, compare=True).maps["compare"].icc == profile


def test_large_ones_are_compared_small(task):
    image = np.zeros((150, 3000, 3), np.uint8)
    image[:, 1500:] = 200
    sheet = task(image, "off", compare=True, strength=0).maps["compare"].pixels
    assert sheet.shape == (51, 1024 + 8 + 1024, 3)
    np.testing.assert_array_equal(sheet[:, :1024], sheet[:, 1032:])
    assert (sheet[:, :512] == 0).all()
    assert (sheet[:, 512:1024] == 200).all()


def test_faces_warn_once_and_only_when_asked_for(task, photo):
    with pytest.warns(
        ImageWarning, match="faces are not refined: this version has no face-finder and no face-refiner"
    ) as said:
        asked = task(photo, faces=True).image
    assert len(said) == 1
    with warnings.catch_warnings(action="error"):
        for options in ({}, {"faces": False}, {"faces": True, "face_strength": 0}):
            np.testing.assert_array_equal(task(photo, **options).image, asked)


def test_faces_are_refined_in_the_image_as_a_whole(task, photo, monkeypatch):
    seen = []

    def refine(image, *, strength, refiner):
        seen.append((image.shape, image.dtype, strength, refiner))
        image[:] = 1 - image  # where it lies: the photograph is held once

    monkeypatch.setattr(face_refinement, "refine_in_place", refine)
    monkeypatch.setattr(face_refinement, "load_refiner", lambda device: f"on {device}")
    monkeypatch.setattr(module, "_is_shipped", lambda name: True)
    for kind in ("colour", "grey"):
        image = KINDS[kind](photo)
        np.testing.assert_array_equal(255 - task(image, face_strength=0.4).image, task(image, faces=False).image)
    assert seen == [(photo.shape, np.float32, 0.4, "on auto")] * 2  # not for those that want none


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_keep_what_they_say(task, photo, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "Grandmother, 1931"
    Image.fromarray(photo).save(tmp_path / "an old one.jpg", exif=exif, dpi=(300, 300), quality=95)
    task.to_file(tmp_path / "an old one.jpg", out=tmp_path / "new one.jpg")
    made = Image.open(tmp_path / "new one.jpg")
    assert made.getexif()[0x010E] == "Grandmother, 1931"
    assert made.size == (90, 70)
    Image.fromarray(KINDS["16 bit"](photo)[..., 0]).save(tmp_path / "deep.tif")
    task.to_file(tmp_path / "deep.tif", out=tmp_path / "made.tif")
    deep = np.asarray(Image.open(tmp_path / "made.tif"))
    assert deep.dtype == np.uint16
    np.testing.assert_array_equal(deep, task(KINDS["16 bit"](photo)[..., 0]).image)


def test_progress_reaches_its_end_and_can_cancel(task, photo, tmp_path):
    calls = []
    task(photo, progress=lambda *call: calls.append(call))
    assert [call for call in calls if call[0] == call[1]] == [(70, 70, "finding damage"), (70, 70, "restoring")]

    def stop(done, total, stage):
        if stage == "restoring":
            raise velatura.Cancelled("enough")

    with pytest.raises(velatura.Cancelled):
        task.to_file(photo, out=tmp_path / "never.png", progress=stop)
    assert not list(tmp_path.iterdir())


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_file_does_what_the_model_does(shipped, task, photo, tmp_path):
    own = tmp_path / "my-net.safetensors"
    own.write_bytes((shipped / "direct.safetensors").read_bytes())
    result = Restore(own)(photo)
    assert result.made_by == "my-net"
    np.testing.assert_array_equal(result.image, task(photo).image)
    with pytest.raises(ModelError, match="holds a ScratchDetector; expected Restorer or Triplet"):
        Restore(shipped / "scratch-detector.safetensors")


def test_models_that_are_not_there_are_named(photo, tmp_path, monkeypatch):
    assert Restore.models()[:2] == ("direct", "triplet")
    with pytest.raises(ModelError, match="unknown model 'direkt'; expected direct, triplet, or a file"):
        Restore("direkt")
    with pytest.raises(ModelError, match="no such file"):
        Restore(tmp_path / "absent.safetensors")
    for names, missing, options in [
        ((), "direct", {}),
        (("direct",), "fading-estimator", {}),
        (("direct",), "scratch-detector", {"fading": False}),
    ]:
        with monkeypatch.context() as patch:
            ship(tmp_path / str(len(names)) / missing, patch, names)
            with pytest.raises(ModelError, match=f"unknown model '{missing}'"):
                Restore()(photo, **options)
            if names:  # what is not needed need not be there
                Restore()(photo, "off", fading=False)
                Restore()(photo, np.zeros(photo.shape[:2]), fading=False)
        catalog._read_catalog.cache_clear()
