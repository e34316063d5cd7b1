import copy
import errno
import json
import os
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter
from skimage import data
from torch import nn
from upscalers import KINDS, make, save

import velatura
from velatura import InputError, MachineError, ModelError, Upscale, catalog, community, upscale
from velatura.image import Picture
from velatura.metrics.fidelity import Y, psnr
from velatura.nets.inference import for_inference
from velatura.nets.rows import in_bands
from velatura.ops.evidence import Calibration
from velatura.ops.pyramid import fill_holes
from velatura.ops.resize import resize
from velatura.task import parse_params
from velatura.tasks import upscale as module

BASELINES = ["bicubic", "lanczos"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A weights file of every kind of network."""
    folder = tmp_path_factory.mktemp("weights")
    return {kind: save(folder, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def tasks(files):
    """Every model, ready: networks and baselines."""
    return {name: Upscale(path) for name, path in files.items()} | {name: Upscale(name) for name in BASELINES}


@pytest.fixture(scope="module")
def task(tasks):
    return tasks["srresnet"]


@pytest.fixture(scope="module")
def photo():
    """Face, hair, edges: 40 rows, 50 columns."""
    return np.ascontiguousarray(data.astronaut()[90:130, 190:240])


def levels(a, b):
    """The largest difference, in grey levels of 255."""
    return np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()


# --- one image, whole or in bands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_bands_equal_the_whole(files, photo, kind, monkeypatch):
    own, photo = KINDS[kind][1].get("scale", 4), photo[:, :48]
    bands = Upscale(files[kind], memory=0.01)(photo, scale=own).image
    network = for_inference(make(kind).requires_grad_(False), module_half())
    image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
    (whole,) = in_bands(network, [(image, True)])
    assert levels(bands, whole[0].clamp(0, 1).permute(1, 2, 0) * 255) <= 1
    # It does something, or this test would say nothing.
    plain = Upscale("bicubic")(photo, scale=own).image
    assert levels(bands, plain) > 3


def module_half():
    from velatura.device import half_precision

    return half_precision(torch.device("cpu"))


@pytest.mark.parametrize("kind", ["srcnn", "srresnet", "rrdb"])
@torch.inference_mode()
def test_half_precision_is_near_the_whole_image_in_float32(tasks, photo, kind):
    image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
    exact = make(kind)(image)[0].clamp(0, 1).permute(1, 2, 0).numpy()
    assert psnr(tasks[kind](photo).image, exact, Y) > 44  # of random weights; trained ones: benchmarks/upscale.py


@pytest.mark.parametrize("memory", [0.05, 1, 30])
def test_the_memory_bounds_the_bands_not_the_result(files, task, photo, memory):
    usual = task(photo, scale=2.5, consistent=True).image
    assert levels(Upscale(files["srresnet"], memory=memory)(photo, scale=2.5, consistent=True).image, usual) <= 1


@pytest.mark.parametrize("kind", ["srresnet", "bicubic"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 70), (70, 3)])
def test_any_size(tasks, kind, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = tasks[kind](image, scale=3.5, consistent=True, evidence=True)
    assert result.image.shape == (round(size[0] * 3.5), round(size[1] * 3.5), 3)
    assert result.maps["evidence"].pixels.shape[:2] == result.image.shape[:2]


@pytest.mark.parametrize("scale", [1, 1.1, 2, 3, 3.3, 4, 5, 7.77, 8])
@pytest.mark.parametrize("kind", ["srresnet", "srresnet-2", "srcnn-3", "srvgg-1", "lanczos"])
def test_any_scale(tasks, photo, kind, scale):
    result = tasks[kind](photo, scale=scale).image
    assert result.shape == (round(40 * scale), round(50 * scale), 3)
    # It is that photograph, in its place: within what a random network changes.
    plain = np.clip(resize(photo, *result.shape[:2]), 0, 255)
    assert np.abs(result - plain).mean() < 15
    likeness = np.corrcoef(result.ravel(), plain.ravel())[0, 1]
    assert likeness > 0.96
    assert likeness > np.corrcoef(np.roll(result, max(round(scale), 2), 1).ravel(), plain.ravel())[0, 1]


@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize("scale", [1, 2.7, 8])
def test_baselines_are_the_resampling_of_the_whole(tasks, photo, kind, scale):
    result = tasks[kind](photo, scale=scale)
    expected = np.clip(np.rint(resize(photo, *result.image.shape[:2], kernel=kind)), 0, 255)
    assert levels(result.image, expected) <= 1
    assert (result.image == expected).mean() > 0.999
    assert result.made_by is None


@pytest.fixture
def with_networks(monkeypatch):
    """Let names stand for networks of the test's own."""

    def give(**networks):
        monkeypatch.setattr(community, "load_upscaler", lambda name, device: copy.deepcopy(networks[name]))
        monkeypatch.setattr(Upscale, "models", classmethod(lambda cls: tuple(networks)))

    return give


class Stripes(nn.Module):
    """Enlarges whatever it sees to columns of black and white; takes tiles, not bands."""

    scale, receptive_radius = 2, 0

    def __init__(self):
        super().__init__()
        self.white = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, image):
        made = image.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3) * 0
        made[..., ::2] = self.white
        return made


def test_what_becomes_smaller_is_averaged_in_linear_light(with_networks, photo):
    """From afar stripes of black and white are half as bright as white: that is a value of 188, not of 128."""
    with_networks(stripes=Stripes())
    task = Upscale("stripes")
    assert np.unique(task(photo, scale=2).image).tolist() == [0, 255]
    assert levels(task(photo, size=(50, 41)).image[4:-4, 4:-4], 188) <= 1
    assert levels(task(photo, scale=4).image[:, 4:-4].mean(), 127.5) <= 1  # what is enlarged stays as the eye sees it


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 80), (80, 100)), ("100x80", (80, 100)), ("100x", (80, 100)), ("x80", (80, 100)), ((None, 99), (99, 124))],
)
def test_size_instead_of_scale(photo, size, expected):
    assert upscale(photo, model="bicubic", size=size).image.shape[:2] == expected


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"size": "800"}, "option 'size': got '800'; expected WxH, Wx or xH, in pixels"),
        ({"size": "x"}, "expected WxH, Wx or xH"),
        ({"size": "-5x9"}, "expected WxH, Wx or xH"),
        ({"size": (None, None)}, "at least one side"),
        ({"size": "0x0"}, "option 'size': got '0x0'; expected WxH, Wx or xH, in pixels, at least one side"),
        ({"size": "0x80"}, "option 'size': got 0; input should be greater than 0"),
        ({"size": "²x"}, "expected WxH, Wx or xH"),
        ({"size": (49, 40)}, "size 49x40 is out of reach for 50x40; expected each side from 1 to 8 times as long"),
        ({"size": "401x"}, "out of reach"),
        ({"scale": 0.9}, "greater than or equal to 1"),
        ({"scale": 8.1}, "less than or equal to 8"),
        ({"scale": float("nan")}, "scale"),
        ({"realism": 1.5}, "realism"),
        ({"kernel": "nearest"}, "'bicubic', 'area' or 'lanczos'"),
        ({"skale": 2}, "did you mean 'scale'"),
    ],
)
def test_bad_options_are_one_clear_line(tasks, photo, params, message):
    with pytest.raises(InputError, match=message) as error:
        tasks["bicubic"](photo, **params)
    assert "\n" not in str(error.value)


# --- depth, channels, alpha, forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["srresnet", "rrdb", "lanczos"])
def test_depth_and_channels_are_those_of_the_photograph(tasks, photo, kind):
    eight = tasks[kind](photo).image
    deep = tasks[kind](photo.astype(np.uint16) * 257).image
    assert deep.dtype == np.uint16
    assert levels(deep / 257, eight) <= 1  # rounded before it is compared, and half a level comes from that
    assert len(np.unique(deep % 257)) > 100  # depth that was computed, not 8 bits spread out
    floats = tasks[kind](photo.astype(np.float32) / 255).image
    assert floats.dtype == np.float32
    assert levels(floats * 255, eight) <= 1
    grey = tasks[kind](photo[..., 0]).image
    assert grey.shape == (160, 200)
    one = tasks[kind](np.repeat(photo[..., :1], 3, -1)).image
    unclipped = (one > 0).all(-1) & (one < 255).all(-1)  # the mean is taken before values are cut
    assert levels(grey[unclipped], one.mean(-1)[unclipped]) <= 1


@pytest.mark.parametrize("kind", ["srresnet", "bicubic", "lanczos"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparent_surroundings_leave_no_fringe(tasks, kind, dtype):
    """A white disc on black that nobody sees, as drawing programs leave it."""
    white = np.iinfo(dtype).max
    y, x = np.mgrid[-20:20, -25:25]
    alpha = np.clip((14 - np.hypot(y, x)) * 0.5 + 0.5, 0, 1)
    photos = [
        np.dstack([np.where(alpha[..., None] > 0, white, under).repeat(3, -1), alpha * white]).astype(dtype)
        for under in (0, white // 2)
    ]
    black, grey = (tasks[kind](photo, scale=3).image for photo in photos)
    seen = black[..., 3] > 0.05 * white
    np.testing.assert_array_equal(black[seen], grey[seen])
    solid = tasks[kind](np.full((40, 50, 3), white, dtype), scale=3).image
    assert levels(black[..., :3][seen] / white * 255, solid.max() / white * 255) <= 6
    expected = resize(photos[0][..., 3], 120, 150, "bicubic").clip(0, white)
    assert levels(black[..., 3] / white, expected / white) * 255 <= 1


@pytest.mark.parametrize("kind", ["srresnet", "bicubic"])
def test_consistency_does_not_bring_back_what_nobody_sees(tasks, kind):
    photo = np.full((24, 30, 4), (200, 200, 200, 255), np.uint8)
    photo[:, 15:] = 0
    black = tasks[kind](photo, consistent=True).image
    photo[:, 15:, :3] = 90
    grey = tasks[kind](photo, consistent=True).image
    np.testing.assert_array_equal(black[black[..., 3] > 0], grey[grey[..., 3] > 0])


@pytest.mark.parametrize("kind", ["srresnet", "bicubic"])
def test_nothing_but_transparency(tasks, kind):
    result = tasks[kind](np.zeros((8, 9, 4), np.uint8), scale=2).image
    assert not result[..., 3].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_nobody_sees_is_replaced_in_little_memory(dtype):
    """Beside the copy that is changed, some bands: nothing that grows with the height."""
    random, white = np.random.default_rng(0), np.iinfo(dtype).max
    pixels = random.integers(0, white, (6000, 200, 3), dtype)
    alpha = np.full((6000, 200), white, dtype)
    alpha[1000:4000, 50:] = 0
    tracemalloc.start()
    seen = module._seen(Picture(pixels, alpha)).pixels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * pixels.nbytes + 2**22
    np.testing.assert_array_equal(seen[alpha > 0], pixels[alpha > 0])
    planes = np.moveaxis(pixels / np.float32(white), -1, 0)
    whole = np.moveaxis(fill_holes(planes, alpha > 0), 0, -1) * np.float32(white)
    assert levels(seen, whole) <= 0.51


def test_profile_and_metadata_are_kept(task, photo, tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a face", 6  # a description; to be turned by a quarter
    Image.fromarray(photo).save(tmp_path / "in.png", icc_profile=profile, exif=exif)
    for suffix in ("png", "jpg", "tif", "webp"):
        out = task.to_file(tmp_path / "in.png", out=tmp_path / f"out.{suffix}", scale=2)
        with Image.open(out) as opened:
            assert opened.size == (80, 100)
            assert opened.info["icc_profile"] == profile
            assert opened.getexif()[0x010E] == "a face"
            assert opened.getexif().get(0x0112, 1) == 1


def test_forms_go_out_as_they_came(tasks, photo, tmp_path):
    expected = tasks["srresnet"](photo).image
    pil = tasks["srresnet"](Image.fromarray(photo)).image
    assert isinstance(pil, Image.Image)
    np.testing.assert_array_equal(np.asarray(pil), expected)
    tensor = tasks["srresnet"](torch.from_numpy(photo.copy()).permute(2, 0, 1)).image
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), expected)
    before = photo.copy()
    again = tasks["srresnet"](photo).image
    np.testing.assert_array_equal(again, expected)  # the same bytes twice
    np.testing.assert_array_equal(photo, before)


@pytest.mark.parametrize("kind", ["srresnet", "bicubic"])
def test_files_hold_what_memory_holds_and_say_who_made_it(tasks, photo, tmp_path, kind):
    params = {"scale": 2.2, "consistent": True, "evidence": True}
    expected = tasks[kind](photo, **params)
    params.pop("evidence")
    out = tasks[kind].to_file(photo, out=tmp_path / "o.png", maps={"evidence": tmp_path / "map.png"}, **params)
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected.image)
    found = np.asarray(Image.open(tmp_path / "map.png"))
    np.testing.assert_array_equal(found, expected.maps["evidence"].pixels[..., 0])
    assert expected.made_by == (kind if kind == "srresnet" else None)
    assert (b"DigitalSourceType" in out.read_bytes()) == (kind == "srresnet")
    assert expected.save(tmp_path / "p.png").read_bytes() == out.read_bytes()


# --- what the photograph determines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["bicubic", "area", "lanczos"])
@pytest.mark.parametrize("scale", [2, 3.3, 4])
@pytest.mark.parametrize("kind", ["srresnet", "bicubic"])
def test_a_consistent_result_shrinks_to_what_was_given(tasks, kernel, scale, kind):
    small = 150, 70  # several strips of rows and of columns
    size = tuple(round(side * scale) for side in small)
    original = data.coffee()[: size[0], : size[1]]
    original = resize(original, *size, "bicubic").clip(0, 255)
    given = np.rint(resize(original, *small, kernel).clip(0, 255)).astype(np.uint8)
    result = tasks[kind](given, scale=scale, consistent=True, kernel=kernel).image
    again = np.rint(resize(result, *small, kernel).clip(0, 255))
    assert levels(again, given) <= 1
    plain = tasks[kind](given, scale=scale).image
    assert levels(resize(plain, *small, kernel), given) > 1  # or there was nothing to do
    assert np.abs(result.astype(int) - plain).mean() < 8


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_what_no_shrinking_made_is_met_in_the_mean(tasks, kernel):
    """Sharpened edges, noise, print: more contrast from pixel to pixel than shrinking leaves."""
    plain = data.astronaut()[60:140, 150:240].astype(float)
    sharpened = plain + (plain - gaussian_filter(plain, (1, 1, 0)))
    noisy = plain + np.random.default_rng(0).normal(0, 20, plain.shape)
    for image in (sharpened, noisy, data.page()[40:120, 60:150]):
        given = image.clip(0, 255).astype(np.uint8)
        result = tasks["srresnet"](given, scale=2, consistent=True, kernel=kernel).image
        assert np.abs(resize(result, 80, 90, kernel) - given).mean() <= 1


def test_consistency_keeps_grey_depth_and_alpha(tasks, photo):
    deep = photo[..., 0].astype(np.uint16) * 257
    result = tasks["bicubic"](deep, consistent=True).image
    assert levels(resize(result, 40, 50, "bicubic"), deep) <= 257
    alpha = np.full((40, 50), 255, np.uint8)
    assert tasks["bicubic"](np.dstack([photo, alpha]), consistent=True).image.shape == (160, 200, 4)


@pytest.mark.parametrize("kind", ["srresnet", "bicubic"])
def test_evidence_is_high_where_detail_is_supposed(tasks, kind):
    """Left flat, in the middle a soft ramp, right a texture at the finest scale."""
    image = np.full((48, 150), 120, np.uint8)
    image[:, 50:100] = np.linspace(120, 160, 50)
    image[:, 100:] = np.random.default_rng(0).integers(0, 256, (48, 50))
    result = tasks[kind](image, evidence=True)
    found = result.maps["evidence"].pixels
    assert (found.shape, found.dtype) == ((192, 600, 1), np.uint8)
    flat, ramp, texture = (found[16:-16, left + 24 : left + 176].mean() for left in (0, 200, 400))
    assert texture > 60
    if kind == "bicubic":  # random weights make something of nothing
        assert flat <= 2
        assert ramp < 0.3 * texture
    assert max(flat, ramp) < texture
    np.testing.assert_array_equal(result.image, tasks[kind](image).image)  # the picture is the same


def test_evidence_is_asked_for(tasks, photo):
    assert tasks["bicubic"](photo).maps == {}


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["srgan", "srresnet"])
def test_realism_lies_between_two_networks(with_networks, photo, named):
    faithful, sharp = make("srresnet"), make("srresnet", seed=1)
    middle = make("srresnet")
    with torch.no_grad():
        for parameter, goal in zip(middle.parameters(), sharp.parameters(), strict=True):
            parameter.lerp_(goal, 0.5)
    with_networks(srresnet=faithful, srgan=sharp, middle=middle)
    task = Upscale(named)
    ends = [Upscale(name)(photo).image for name in ("srresnet", "srgan")]
    for realism, expected in zip((0, 1, 0.5), (*ends, Upscale("middle")(photo).image), strict=True):
        np.testing.assert_array_equal(task(photo, realism=realism).image, expected)
    assert levels(*ends) > 5
    np.testing.assert_array_equal(task(photo).image, ends[named == "srgan"])  # and without it, what was named
    # Who did the work is said, and what the detail is worth is asked of them, not of the one that was named.
    maps = {}
    for realism, label in ((0, "srresnet"), (0.5, "srresnet+srgan@0.5"), (1, "srgan")):
        result = task(photo, realism=realism, evidence=True)
        assert result.made_by == label
        maps[realism] = result.maps["evidence"].pixels
    for realism, name in ((0, "srresnet"), (1, "srgan")):
        np.testing.assert_array_equal(maps[realism], Upscale(name)(photo, evidence=True).maps["evidence"].pixels)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A catalog of two tiny networks, for 4 and for 2 times, or without the second."""

    def give(*, both=True):
        folder = tmp_path / "shipped"
        folder.mkdir()
        names = {"srresnet": "srresnet"} | ({"srresnet-x2": "srresnet-2"} if both else {})
        for name, kind in names.items():
            save(folder, kind, name=name)
        known = (
            'task = "upscale"\ncommercial_use = true\ncommercial_use_reason = "made of random numbers"\n'
            'weights_licence = "Apache-2.0"\nrecipe = "none"\ncommit = "none"\nprotocol = "none"\npaper = "none"\n'
            "limits = []\nimages = []\n"
        )
        table = tmp_path / "catalog.toml"
        table.write_text("".join(f'[{name}]\nfile = "{name}.safetensors"\n{known}\n' for name in names))
        monkeypatch.setattr(catalog, "WEIGHTS", folder)
        monkeypatch.setattr(catalog, "CATALOG", table)
        for name in names:
            catalog.fill_card(name)
        return folder

    yield give
    catalog._read_catalog.cache_clear()


@pytest.mark.parametrize("named", [None, "srresnet"])
def test_up_to_twice_the_network_for_two_is_taken(shipped, files, photo, named):
    shipped()
    two, four = Upscale(files["srresnet-2"]), Upscale(files["srresnet"])
    task = Upscale(named)
    for options, expected in [
        ({"scale": 2}, two),
        ({"scale": 1.5}, two),
        ({"scale": 1.1}, two),
        ({"size": "100x80"}, two),
        ({"size": "x60"}, two),
        ({"scale": 2.1}, four),
        ({"scale": 4}, four),
        ({"size": "100x81"}, four),  # one side is enough
        ({"size": "101x80"}, four),
    ]:
        made = task(photo, **options)
        np.testing.assert_array_equal(made.image, expected(photo, **options).image, str(options))
        assert made.made_by == ("srresnet-x2" if expected is two else "srresnet")
    assert levels(two(photo, scale=2).image, four(photo, scale=2).image) > 3  # or the above would say nothing
    with pytest.raises(InputError, match="out of reach"):
        task(photo, size="49x")


def test_the_network_for_two_makes_any_scale_when_it_is_named(shipped, files, photo):
    shipped()
    named, file = Upscale("srresnet-x2"), Upscale(files["srresnet-2"])
    for options in ({"scale": 1.3}, {"scale": 2}, {"scale": 4}, {"size": "399x"}):
        made = named(photo, **options)
        np.testing.assert_array_equal(made.image, file(photo, **options).image)
        assert made.made_by == "srresnet-x2"


def test_without_the_network_for_two_the_usual_one_is_taken(shipped, files, photo):
    shipped(both=False)
    for options in ({"scale": 2}, {"size": "90x"}):
        made = Upscale()(photo, **options)
        np.testing.assert_array_equal(made.image, Upscale(files["srresnet"])(photo, **options).image)
        assert made.made_by == "srresnet"


def test_networks_are_read_when_they_are_needed(shipped, photo, monkeypatch):
    shipped()
    read, load = [], community.load_upscaler

    def counted(name, device):
        read.append(name)
        return load(name, device)

    monkeypatch.setattr(community, "load_upscaler", counted)
    task = Upscale()
    assert read == []
    for size in ("100x", "90x", "150x", "80x"):
        task(photo, size=size)
    assert read == ["srresnet-x2", "srresnet"]
    Upscale()(photo, scale=2)
    assert read[2:] == ["srresnet-x2"]


@pytest.mark.parametrize("damaged", ["srresnet", "srresnet-x2"])
def test_before_the_size_is_known_both_files_are_checked(shipped, damaged):
    path = shipped() / f"{damaged}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=f"{damaged}.safetensors: its sha256"):
        Upscale().prepare(parse_params(Upscale.Params, {"size": "90x"}))
    with pytest.raises(InputError, match="cuda"):
        Upscale(device="cuda:99").prepare(parse_params(Upscale.Params, {"size": "90x"}))


def test_evidence_is_that_of_the_network_that_was_taken(shipped, photo, monkeypatch):
    shipped()
    monkeypatch.setitem(module.CALIBRATIONS, "srresnet-x2", Calibration(1e-9, 1e-4))
    task = Upscale()
    assert task.calibration(2) == module.CALIBRATIONS["srresnet-x2"]
    assert task.calibration(4) == module.CALIBRATIONS["srresnet"]
    assert task(photo, scale=2, evidence=True).maps["evidence"].pixels.max() == 0
    assert task(photo, scale=4, evidence=True).maps["evidence"].pixels.max() > 50


def test_realism_wants_two_networks(tasks, photo):
    with pytest.raises(InputError, match="bicubic is none, take srgan, esrgan"):
        tasks["bicubic"](photo, realism=0.5)
    with pytest.raises(InputError, match=r"srresnet\.safetensors has no counterpart, take srgan, esrgan"):
        tasks["srresnet"](photo, realism=0.5)


class Greedy(nn.Module):
    """Has memory for so many rows, and notices it late."""

    def __init__(self, network, most, error=None):
        super().__init__()
        self.network, self.most, self.scale = network, most, network.scale
        self.multiple = getattr(network, "multiple", 1)
        self.full_precision = tuple(f"network.{name}" for name in getattr(network, "full_precision", ()))
        self.error = error or torch.OutOfMemoryError("no memory")

    def forward(self, image, rows):
        done = self.network(image, rows)  # what it kept must be forgotten
        if image.shape[2] > self.most:
            raise self.error
        return done


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), RuntimeError("can't allocate memory: 9 bytes")])
def test_out_of_memory_goes_on_with_less(with_networks, photo, error):
    network = make("srresnet")
    with_networks(usual=network, greedy=Greedy(network, 11, error), never=Greedy(network, 0, error))
    tall = np.concatenate([photo] * 12)  # several bands: what the first one learned holds for all
    usual = Upscale("usual")(tall).image
    with pytest.warns(RuntimeWarning, match="out of memory: going on with bands of") as warned:
        assert levels(Upscale("greedy")(tall).image, usual) <= 1
    said = [str(one.message).rpartition(" of ")[2] for one in warned]
    assert said == ["81 rows", "40 rows", "20 rows", "10 rows"]
    never = Upscale("never")
    with warnings.catch_warnings(action="ignore"), pytest.raises(MachineError, match="too wide for this network"):
        never(photo)


def test_out_of_memory_keeps_to_the_rows_that_a_network_wants(with_networks, files, photo):
    network = community.load_upscaler(files["rrdb-unshuffle"])
    assert network.multiple == 4
    with_networks(usual=network, greedy=Greedy(network, 13))
    with pytest.warns(RuntimeWarning, match="bands of 12 rows"):  # and not of 14
        made = Upscale("greedy")(photo[:28], scale=1).image
    assert levels(made, Upscale("usual")(photo[:28], scale=1).image) <= 1


def test_other_errors_of_the_network_are_not_swallowed(with_networks, photo):
    class Broken(Stripes):
        def forward(self, image):
            raise RuntimeError("a bug")

    with_networks(broken=Broken())
    with pytest.raises(RuntimeError, match="a bug"):
        Upscale("broken")(photo)


def test_a_model_of_the_users_own_is_named(files, photo, tmp_path):
    own = tmp_path / "my-net.safetensors"
    own.write_bytes(files["srvgg"].read_bytes())
    assert Upscale(own)(photo).made_by == "my-net"
    torch.save({"params": make("srvgg").state_dict()}, tmp_path / "theirs.pth")
    theirs = Upscale(tmp_path / "theirs.pth")(photo).image
    np.testing.assert_array_equal(theirs, Upscale(own)(photo).image)


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return type(self.witness).touch, (self.witness,)


def test_bad_checkpoints_are_refused_at_once(files, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(files["srresnet"])
    header = {"architecture": "SRResNet", "arguments": json.dumps(KINDS["srresnet"][1])}

    def refused(name, content=None, tensors=None, notes=None):
        path = tmp_path / name
        if tensors is not None:
            save_file(tensors, path, header if notes is None else notes)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(ModelError) as error:
            Upscale(path)
        assert "\n" not in str(error.value)
        assert name in str(error.value)
        return str(error.value)

    renamed = {key.replace("tail", "tale"): value for key, value in state.items()}
    assert "misses tensor 'tail.bias'" in refused("keys.safetensors", tensors=renamed)
    bad = {key: value * float("nan") if key == "tail.bias" else value for key, value in state.items()}
    assert "'tail.bias' holds numbers that are not finite" in refused("nan.safetensors", tensors=bad)
    assert "SRGAN9" in refused("kind.safetensors", tensors=state, notes=header | {"architecture": "SRGAN9"})
    whole = files["srresnet"].read_bytes()
    refused("short.safetensors", whole[: len(whole) // 2])
    refused("empty.safetensors", b"")
    refused("text.pth", b"hello")
    witness = tmp_path / "it-ran"
    assert "holds more than weights" in refused("bomb.pth", {"params": state, "more": Bomb(witness)})
    assert not witness.exists()
    with pytest.raises(ModelError, match="no such file"):
        Upscale(tmp_path / "absent.pth")


def test_names_that_no_upscaler_has_are_refused_with_those_that_are_there():
    models = Upscale.models()
    assert models[0] == Upscale.default_model
    assert {"bicubic", "lanczos", "esrgan-psnr"} < set(models)
    for name in ("features", "blending-gan", "nope.bin", ""):
        with pytest.raises(
            ModelError, match=f"unknown model '{name}'; expected srresnet, .*bicubic, lanczos, or a file"
        ):
            Upscale(name)
    with pytest.raises(ModelError, match=r"unknown model 'srresnett'; did you mean 'srresnet'\? or a file"):
        Upscale("srresnett")
    for card in catalog.cards():
        assert (card.name in models) == (card.architecture in community.OURS)


# --- progress and errors ----------------------------------------------------------------------------------------------


def test_progress_reaches_its_end_and_can_cancel(tasks, photo, tmp_path):
    calls = []
    tasks["srresnet"](photo, progress=lambda *call: calls.append(call))
    assert calls[0] == (0, 160, "upscaling")
    assert calls[-1] == (160, 160, "upscaling")
    assert [call[0] for call in calls] == sorted(call[0] for call in calls)

    def stop(done, total, stage):
        raise velatura.Cancelled("enough")

    with pytest.raises(velatura.Cancelled):
        tasks["srresnet"].to_file(photo, out=tmp_path / "never.png", progress=stop)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tasks, photo, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_quantized", full)
    with pytest.raises((OSError, MachineError)):
        tasks["bicubic"].to_file(photo, out=tmp_path / "never.png")
    assert not list(tmp_path.iterdir())


def test_the_function_is_the_class(files, photo):
    result = upscale(photo, model=files["srresnet"], scale=2)
    np.testing.assert_array_equal(result.image, Upscale(files["srresnet"])(photo, scale=2).image)
    assert result.params.kernel == "bicubic"


def test_an_exported_network_gives_the_same_without_torch(tmp_path, monkeypatch):
    """Tiles with all that the network sees, at one side of the border or the other."""
    scene, seen = np.random.default_rng(4).random((70, 90, 3), np.float32), []

    class Exported:
        scale, receptive_radius, halo = 2, 3, 1

        def __call__(self, image):
            seen.append(image.shape)
            blurred = uniform_filter(image, (7, 7, 1), mode="constant")
            return blurred.repeat(2, 0).repeat(2, 1)

    monkeypatch.setattr(module, "ExportedUpscaler", Exported)
    monkeypatch.setattr(Upscale, "_exported", lambda self, realism: Exported())
    small, large = (Upscale.from_pretrained("net.onnx", memory=memory)(scene, scale=2).image for memory in (16, 512))
    assert len(seen) > 5
    np.testing.assert_allclose(small, large, atol=1e-6)
    grey = Upscale.from_pretrained("net.onnx")(scene[..., 0], scale=2).image
    np.testing.assert_allclose(
        grey, uniform_filter(scene[..., 0], 7, mode="constant").repeat(2, 0).repeat(2, 1), atol=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "options", "complaint"),
    [({"device": "cuda"}, {}, "run on the CPU"), ({}, {"realism": 0.5}, "an exported file holds one")],
)
def test_what_an_exported_network_cannot_do(arguments, options, complaint, monkeypatch):
    monkeypatch.setattr(module, "ExportedUpscaler", lambda path: path)
    with pytest.raises(InputError, match=complaint):
        Upscale.from_pretrained("net.onnx", **arguments).prepare(parse_params(Upscale.Params, options))


@pytest.mark.parametrize("kind", ["srresnet", "bicubic"])
def test_the_same_size_is_the_same_photograph(files, photo, kind):
    """And nothing of it is supposed."""
    result = Upscale(files.get(kind, kind))(photo, scale=1, evidence=True, consistent=True)
    np.testing.assert_array_equal(result.image, photo)
    assert result.made_by is None
    assert not result.maps["evidence"].pixels.any()


def test_nothing_is_supposed_where_nobody_looks(files, photo):
    alpha = np.full(photo.shape[:2], 255, np.uint8)
    alpha[:, :25] = 0
    seen = Upscale(files["srresnet"])(np.dstack([photo, alpha]), evidence=True).maps["evidence"].pixels
    assert not seen[:, :96].any()
    assert seen[:, 104:].any()


def test_drawn_pictures_are_enlarged_one_by_one():
    seen = []
    pictures = [Picture(np.full((4, 6, 3), value, np.uint8)) for value in (50, 180)]
    large = module.enlarged(pictures, 2, device="cpu", progress=lambda *what: seen.append(what))
    assert [(picture.height, picture.width) for picture in large] == [(8, 12)] * 2
    assert seen == [(1, 2, "enlarging"), (2, 2, "enlarging")]
