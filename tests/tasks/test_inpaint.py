from dataclasses import replace

import numpy as np
import pytest
import torch
from inpainters import save_gan, ship, upright
from PIL import Image
from skimage import data

import velatura
from velatura import catalog, semantic
from velatura.errors import Cancelled, InputError, ModelError, VelaturaError
from velatura.faces import _load_finder
from velatura.holes import CELL
from velatura.image import ImageWarning
from velatura.latent_search import Search
from velatura.semantic import DEFAULTS
from velatura.tasks import inpaint as module
from velatura.tasks.inpaint import Inpaint, InpaintParams, inpaint


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


def test_a_long_scratch_is_filled_piece_by_piece_without_a_seam():
    photo = np.asarray(Image.fromarray(data.grass()[:, :128]).resize((256, 1400), Image.Resampling.BICUBIC))
    mask = np.zeros(photo.shape, np.uint8)
    mask[:, 118:138] = 255
    filled = inpaint(photo, mask, model="texture").image
    assert np.array_equal(filled[mask == 0], photo[mask == 0])
    steps = np.abs(np.diff(filled.astype(float), axis=0))[:, 118:138].mean(1)
    assert steps[[CELL - 1, 2 * CELL - 1]].max() <= np.quantile(steps, 0.99)


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


def test_its_models_are_what_fills(shipped):
    assert Inpaint.models() == ("auto", "texture", "dcgan-faces", "vae-brain", "vae-faces")


def test_it_can_be_stopped(color, mask):
    def stop(done, total, stage):
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        inpaint(color, mask, progress=stop)


# --- semantic ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The package as it is with weights, which are random numbers here; the faces are what a test says."""
    ship(tmp_path, monkeypatch)
    faces = []
    monkeypatch.setattr("velatura.tasks.inpaint.look_for_faces", lambda *_: faces)
    yield faces
    catalog._read_catalog.cache_clear()
    _load_finder.cache_clear()


@pytest.fixture(scope="module")
def crowd():
    """A photograph in which faces may be supposed."""
    return data.astronaut()[:240, 100:420]


def holed(image, *boxes):
    mask = np.zeros(image.shape[:2], np.uint8)
    for x, y, width, height in boxes:
        mask[y : y + height, x : x + width] = 255
    return mask


FEW = {"steps": 2, "enlarge": "bicubic"}
FACE, ELSEWHERE = (90, 80, 40, 30), (250, 180, 30, 30)


@pytest.mark.parametrize("side", [48, 62, 100])
def test_a_hole_on_a_face_is_the_models(shipped, crowd, side):
    shipped.append(upright(76, 52, side))
    mask = holed(crowd, FACE)
    result = inpaint(crowd, mask, **FEW)
    assert result.made_by == "vae-faces"
    assert np.array_equal(result.image[mask == 0], crowd[mask == 0])
    texture = inpaint(crowd, mask, model="texture").image
    assert (result.image[mask > 0] != texture[mask > 0]).mean() > 0.5
    # Two runs, two seeds, and by name.
    assert np.array_equal(result.image, inpaint(crowd, mask, seed=5, **FEW).image)
    assert np.array_equal(result.image, inpaint(crowd, mask, model="vae-faces", **FEW).image)


def test_each_hole_by_what_fits_it(shipped, crowd):
    shipped.append(upright(70, 50, 100))
    both = inpaint(crowd, holed(crowd, FACE, ELSEWHERE), **FEW).image
    x, y, width, height = ELSEWHERE
    part = slice(y, y + height), slice(x, x + width)
    texture = inpaint(crowd, holed(crowd, FACE, ELSEWHERE), model="texture").image
    assert np.array_equal(both[part], texture[part])
    alone = inpaint(crowd, holed(crowd, FACE), **FEW).image
    x, y, width, height = FACE
    part = slice(y, y + height), slice(x, x + width)
    assert np.abs(both[part].astype(int) - alone[part]).max() <= 2  # joined in another window


def test_the_surest_face_comes_first(shipped, crowd):
    shipped.append(upright(70, 50, 100))
    mask = holed(crowd, FACE)
    alone = inpaint(crowd, mask, **FEW).image
    shipped.append(upright(60, 40, 150))  # nothing of the hole is left for it
    assert np.array_equal(inpaint(crowd, mask, **FEW).image, alone)
    shipped.reverse()
    assert not np.array_equal(inpaint(crowd, mask, **FEW).image, alone)


def test_two_holes_on_a_face_are_filled_together(shipped, crowd):
    shipped.append(upright(70, 50, 160))
    eyes = (110, 105, 20, 20), (165, 105, 20, 20)
    other = crowd.copy()
    other[105:125, 165:185] = 0
    results = [inpaint(image, holed(image, *eyes), **FEW).image for image in (crowd, other)]
    assert np.array_equal(results[0][105:125, 110:130], results[1][105:125, 110:130])


def test_without_a_face_or_without_weights_it_is_texture(shipped, crowd, tmp_path, monkeypatch):
    mask = holed(crowd, FACE)
    texture = inpaint(crowd, mask, model="texture")
    result = inpaint(crowd, mask)
    assert result.made_by is None
    assert np.array_equal(result.image, texture.image)
    shipped.append(upright(70, 50, 100))
    monkeypatch.setattr(catalog, "CATALOG", tmp_path / "empty.toml")
    (tmp_path / "empty.toml").write_text("")
    assert np.array_equal(inpaint(crowd, mask).image, texture.image)


@pytest.mark.parametrize("kind", ["grey", "16 bit", "float", "alpha"])
def test_every_kind_of_picture_keeps_what_is_known(shipped, crowd, kind):
    shipped.append(upright(70, 50, 100))
    image = {
        "grey": crowd[..., 0],
        "16 bit": crowd.astype(np.uint16) * 257 + 1,
        "float": (crowd / 255).astype(np.float32),
        "alpha": np.dstack([crowd, 255 - holed(crowd, (60, 40, 40, 40))]),
    }[kind]
    mask = holed(image, FACE)
    before = image.copy()
    result = inpaint(image, mask, **FEW)
    assert (result.made_by, result.image.shape, result.image.dtype) == ("vae-faces", image.shape, image.dtype)
    assert np.array_equal(result.image[mask == 0], image[mask == 0])
    assert np.array_equal(image, before)
    assert not np.array_equal(result.image[mask > 0], image[mask > 0])


def test_a_hole_that_reaches_beyond_the_face_is_filled_whole(shipped, crowd):
    shipped.append(upright(70, 50, 100))
    mask = holed(crowd, (100, 70, 150, 60))
    # What the hole holds is nowhere in the result.
    filled, other = (
        inpaint(np.where(mask[..., None] > 0, level, crowd).astype(np.uint8), mask, **FEW) for level in (0, 9)
    )
    assert np.array_equal(filled.image, other.image)
    texture = inpaint(crowd, mask, model="texture").image
    assert not np.array_equal(filled.image[75:125, 100:160], texture[75:125, 100:160])
    # Beyond the face it is not flat, nor is there a step where the one ends and the other begins.
    assert filled.image[75:125, 200:245].std() > 0.3 * crowd[75:125, 200:245].std()
    steps = np.abs(np.diff(filled.image[72:128, 160:180].astype(float), axis=1)).mean((0, 2))
    assert steps[7:10].max() < 40


@pytest.mark.parametrize("shape", [(64, 64), (90, 120)])
def test_a_slice_of_a_brain_is_taken_whole_and_is_no_diagnosis(shipped, crowd, shape):
    image = crowd[: shape[0], : shape[1], 0]
    mask = holed(image, (20, 24, 30, 30))
    with pytest.warns(ImageWarning, match="vae-brain makes up .* for research, never for a diagnosis"):
        result = inpaint(image, mask, model="vae-brain", **FEW)
    assert result.made_by == "vae-brain"
    assert np.array_equal(result.image[mask == 0], image[mask == 0])
    assert not np.array_equal(result.image, inpaint(image, mask, model="texture").image)


def test_a_face_that_is_cut_out_needs_no_finder(shipped, crowd):
    small, larger = crowd[:64, :64], crowd[:100, :100]
    hole = (20, 24, 30, 30)
    assert inpaint(small, holed(small, hole), model="vae-faces", **FEW).made_by == "vae-faces"
    with pytest.raises(InputError, match="no hole lies on a face"):
        inpaint(larger, holed(larger, hole), model="vae-faces", **FEW)
    assert inpaint(larger, holed(larger, hole), model="vae-faces", aligned=True, **FEW).made_by == "vae-faces"
    # A small picture may show anything, but for one of which it is said.
    assert inpaint(small, holed(small, hole)).made_by is None
    by_name, automatic = (
        inpaint(larger, holed(larger, hole), model=model, aligned=True, **FEW) for model in ("vae-faces", None)
    )
    assert automatic.made_by == "vae-faces"
    assert np.array_equal(automatic.image, by_name.image)


def test_a_long_scratch_over_what_a_model_fills_is_one_hole(shipped, crowd, monkeypatch):
    large = np.asarray(Image.fromarray(crowd[:100, :100]).resize((1100, 1100)))
    mask = np.zeros(large.shape[:2], np.uint8)
    mask[:, 540:560] = 255
    seen = []
    monkeypatch.setattr(
        module._Work, "_seen", lambda work, region, *rest: seen.append(region) or large[region.inner] / 255
    )
    inpaint(large, mask, model="vae-faces", aligned=True, **FEW)
    assert [region.own.sum() for region in seen] == [1100 * 20]


def test_holes_of_a_whole_picture_are_filled_at_once(shipped, crowd, monkeypatch):
    squares = []

    def counted(model, images, masks, **options):
        squares.append(masks)
        return fill(model, images, masks, **options)

    fill = semantic.fill
    monkeypatch.setattr(semantic, "fill", counted)
    image = crowd[:100, :100]
    inpaint(image, holed(image, (5, 5, 20, 20), (70, 70, 20, 20)), model="vae-faces", aligned=True, **FEW)
    assert [tuple(masks.shape) for masks in squares] == [(1, 1, 64, 64)]
    assert squares[0][0, 0, 10, 10] == squares[0][0, 0, 50, 50] == 1


def test_a_hole_within_anothers_box_is_no_part_of_it(shipped, crowd):
    """A face lies in the box of an L, which is filled by texture as if it were alone."""
    shipped.append(upright(90, 40, 100))
    arms = (60, 60, 6, 140), (60, 194, 200, 6)
    result = inpaint(crowd, holed(crowd, *arms, (120, 80, 40, 30)), candidates=2, disagreement=True, **FEW)
    texture = inpaint(crowd, holed(crowd, *arms, (120, 80, 40, 30)), model="texture").image
    corner = holed(crowd, *arms) > 0
    assert np.array_equal(result.image[corner], texture[corner])
    assert (result.image[80:110, 120:160] != texture[80:110, 120:160]).mean() > 0.5
    # Each candidate changes the square, and the map shows it where they do.
    pictures = [result.picture.pixels / 255, result.maps["candidate-2"].pixels / 255]
    spread = np.std(pictures, axis=0).mean(-1) * 255 * 255 / 64
    assert np.abs(result.maps["disagreement"].pixels[..., 0] - spread.clip(0, 255)).max() < 4


def test_the_papers_setting_is_the_batchs(shipped, crowd):
    """At 64x64 the application gives what the batched function gives."""
    image = np.ascontiguousarray(crowd[:64, :64])
    mask = holed(image, (16, 16, 32, 32))
    result = inpaint(image, mask, model="vae-faces", steps=3)
    planes = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None]
    hole = torch.from_numpy(mask / np.float32(255))[None, None]
    options = replace(DEFAULTS["encoder"], steps=3)
    expected = semantic.fill(semantic.load_model("vae-faces"), planes, hole, options=options, mirror=True).images[0, 0]
    assert np.abs(result.image / 255 - expected.permute(1, 2, 0).numpy()).max() < 1.5 / 255


def test_candidates_are_written_and_compared(shipped, crowd, tmp_path):
    shipped.append(upright(70, 50, 100))
    mask = holed(crowd, FACE)
    task = Inpaint.from_pretrained()
    result = task(crowd, mask, candidates=3, disagreement=True, **FEW)
    assert sorted(result.maps) == ["candidate-2", "candidate-3", "disagreement"]
    pictures = [result.picture, result.maps["candidate-2"], result.maps["candidate-3"]]
    for one in pictures:
        assert np.array_equal(one.pixels[mask == 0], crowd[mask == 0])
    spread = np.std([one.pixels / 255 for one in pictures], axis=0).mean(-1) * 255 * 255 / 64
    found = result.maps["disagreement"].pixels[..., 0]
    assert np.abs(found - spread.clip(0, 255)).max() < 4  # the pictures are rounded
    assert found[mask > 0].max() > 0
    assert not found[mask == 0].any()

    Image.fromarray(crowd).save(tmp_path / "in.png")
    files = {"disagreement": tmp_path / "map.png"}
    task.to_file(tmp_path / "in.png", mask, out=tmp_path / "out.png", maps=files, candidates=3, **FEW)
    for name, one in zip(
        ("out", "out-candidate-2", "out-candidate-3", "map"), [*pictures, result.maps["disagreement"]], strict=True
    ):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"{name}.png")), one.pixels.squeeze())
    (tmp_path / "out.png").unlink()
    with pytest.raises(InputError, match=r"out-candidate-2\.png.*exists"):
        task.to_file(tmp_path / "in.png", mask, out=tmp_path / "out.png", candidates=3, **FEW)
    assert not (tmp_path / "out.png").exists()


def test_candidates_of_texture_are_seeds(color, mask):
    result = inpaint(color, mask, model="texture", candidates=2, seed=3)
    assert np.array_equal(result.image, inpaint(color, mask, seed=3).image)
    assert np.array_equal(result.maps["candidate-2"].pixels, inpaint(color, mask, seed=4).image)


def test_the_papers_own_search(shipped, crowd):
    image = crowd[:64, :64]
    mask = holed(image, (16, 16, 32, 32))
    options = {"model": "dcgan-faces", "method": "latent", "steps": 2}
    first, again, other = (inpaint(image, mask, seed=seed, **options).image for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert InpaintParams(method="latent").search() == Search(1500)
    assert InpaintParams(method="latent", rate=0.5).search() == Search(1500, rate=0.5)
    assert InpaintParams().search() == DEFAULTS["encoder"]


@pytest.mark.parametrize(
    ("model", "options", "complaint"),
    [
        ("vae-faces", {}, "no hole lies on a face that vae-faces could fill; take --model texture, or --aligned"),
        (
            "vae-flowers",
            {},
            "unknown model 'vae-flowers'; expected auto, texture, dcgan-faces, vae-brain, vae-faces or",
        ),
        ("face-finder", {}, "holds a FaceFinder; expected VAE or Generator"),
        (None, {"disagreement": True}, "needs candidates to compare; give --candidates 2 or more"),
        (None, {"window": 4}, "option 'window': got 4; expected an odd number"),
        (None, {"candidates": 0}, "option 'candidates': got 0"),
    ],
)
def test_semantic_refusals(shipped, crowd, model, options, complaint):
    with pytest.raises(VelaturaError, match=complaint):
        inpaint(crowd, holed(crowd, FACE), model=model, **options)


def test_what_a_file_lacks_is_said(shipped, crowd, tmp_path, monkeypatch):
    path = save_gan(tmp_path, "mine", encoder=False)
    with pytest.raises(ModelError, match=r"mine has no encoder.*take --method latent"):
        inpaint(crowd[:64, :64], holed(crowd[:64, :64], (16, 16, 32, 32)), model=path)
    cards = [card for card in catalog.cards() if card.name != "face-finder"]
    monkeypatch.setattr(catalog, "cards", lambda: cards)
    with pytest.raises(ModelError, match="this version has no face finder; give a face cut out upright, and --aligned"):
        inpaint(crowd, holed(crowd, FACE), model="vae-faces")
