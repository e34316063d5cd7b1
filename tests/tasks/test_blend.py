import numpy as np
import pytest
from PIL import Image
from skimage import data

import velatura
from velatura import Blend, InputError, blend
from velatura.metrics.fidelity import laplacian_deviation
from velatura.ops.poisson import solve_dirichlet
from velatura.task import SaveOptions

METHODS = ["gp-gan", "gaussian-poisson", "poisson", "mixed", "paste"]


@pytest.fixture(scope="module")
def task():
    return Blend.from_pretrained()


@pytest.fixture(scope="module")
def photos():
    """Two photographs of one size, and an ellipse."""
    source, destination = data.coffee()[:360, :480], data.astronaut()[60:420, 16:496]
    rows, cols = np.mgrid[:360, :480]
    mask = ((rows - 180) / 90) ** 2 + ((cols - 240) / 120) ** 2 <= 1
    return source, destination, mask


def distance_beyond(mask, pixels):
    """Pixels farther than ``pixels`` from the mask."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask) > pixels


# --- what every method promises ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_piece_of_itself_changes_nothing(task, photos, method, dtype):
    _, photo, mask = photos
    photo = photo.astype(dtype) if dtype != np.float32 else photo.astype(np.float32) / 255
    if dtype == np.uint16:
        photo = photo * 257 + 3
    soft = np.linspace(0, 1, mask.size).reshape(mask.shape)
    for region in (mask, soft):
        np.testing.assert_array_equal(task(photo, photo, region, method=method).image, photo)


@pytest.mark.parametrize("method", METHODS)
def test_the_background_stays(task, photos, method):
    source, destination, mask = photos
    result = task(source, destination, mask, method=method).image
    far = distance_beyond(mask, 64)
    change = np.abs(result.astype(float) - destination)[far]
    assert change.mean() <= 1  # the project's bar; GP-GAN's own code: 2.3 levels where nothing was to change
    assert laplacian_deviation(result, destination) > 0.9
    if method in ("poisson", "mixed", "paste"):
        np.testing.assert_array_equal(result[~mask], destination[~mask])


@pytest.mark.parametrize("method", METHODS)
def test_same_bytes_twice_and_nothing_modified(task, photos, method):
    inputs = [array.copy() for array in photos]
    first, second = (task(*inputs, method=method).image for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for array, original in zip(inputs, photos, strict=True):
        np.testing.assert_array_equal(array, original)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 97), (64, 64), (61, 67)])
def test_any_size(task, method, size):
    rng = np.random.default_rng(0)
    source, destination = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    mask = np.zeros(size, bool)
    mask[: (size[0] + 1) // 2, : (size[1] + 1) // 2] = True
    result = task(source, destination, mask, method=method).image
    assert result.shape == destination.shape


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", ["border", "holes", "parts", "soft", "full", "pixel"])
def test_any_mask(task, photos, method, shape):
    source, destination, _ = photos
    mask = np.zeros((360, 480), np.uint8)
    match shape:
        case "border":
            mask[:, 200:] = 255
        case "holes":
            mask[60:300, 60:400] = 255
            mask[120:160, 120:200] = 0
        case "parts":
            mask[20:80, 20:90] = mask[200:330, 300:470] = 255
        case "soft":
            mask[:] = np.clip(500 - 2 * np.hypot(*np.mgrid[-180:180, -240:240]), 0, 255)
        case "full":
            mask[:] = 255
        case "pixel":
            mask[100, 100] = 255
    result = task(source, destination, mask, method=method).image
    assert result.shape == destination.shape
    assert np.isfinite(result.astype(float)).all()
    if shape != "full" and method in ("poisson", "mixed", "paste"):
        np.testing.assert_array_equal(result[mask == 0], destination[mask == 0])


def test_masks_of_0_and_1_and_of_0_and_255_are_the_same(task, photos):
    source, destination, mask = photos
    forms = [mask, mask.astype(np.uint8), mask.astype(np.uint8) * 255, mask.astype(np.float32)]
    results = [task(source, destination, form, method="gaussian-poisson").image for form in forms]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


# --- each method against its definition ----------------------------------------------------------------------------


def test_paste_is_the_composite(task, photos):
    source, destination, _ = photos
    soft = np.tile(np.linspace(0, 1, 480, dtype=np.float32), (360, 1))
    weight = np.rint(soft * 255)[..., None] / 255
    expected = np.rint(weight * source + (1 - weight) * destination)
    got = task(source, destination, soft, method="paste").image
    assert np.abs(got - expected).max() <= 1  # halves may round either way
    assert (got == expected).mean() > 0.999


@pytest.mark.parametrize("method", ["poisson", "mixed"])
def test_exact_mask_methods_solve_perez_equation(task, photos, method):
    source, destination, mask = (array[::3, ::3] for array in photos)
    got = task(source, destination, mask, method=method).image
    s, d = (np.moveaxis(array, -1, 0).astype(float) for array in (source, destination))
    # sum over neighbours of (u_p - u_q) = sum of v_pq, the guidance: equation 7 of Perez et al. 2003
    guidance = np.zeros_like(s)
    for axis in (1, 2):
        ours, theirs = np.diff(s, axis=axis), np.diff(d, axis=axis)
        edge = np.where((theirs**2).sum(0) > (ours**2).sum(0), theirs, ours) if method == "mixed" else ours
        ahead, behind = ([slice(None)] * 3 for _ in range(2))
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        guidance[tuple(ahead)] += edge
        guidance[tuple(behind)] -= edge
    expected = np.clip(solve_dirichlet(d, mask, guidance, tolerance=1e-6), 0, 255)
    worst = np.abs(np.moveaxis(got, -1, 0) - expected).max()
    assert worst <= 1.2  # half a level of rounding, the rest of the solver


def test_gaussian_poisson_keeps_the_sources_colours_and_closes_the_seam(task, photos):
    source, destination, mask = photos
    paste, got = (task(source, destination, mask, method=m).image for m in ("paste", "gaussian-poisson"))
    inner = ~distance_beyond(~mask, 60) == 0
    np.testing.assert_allclose(got[inner].mean(0), source[inner].mean(0), atol=1)
    across = np.abs(np.diff(got[180].astype(float), axis=0)).max()
    assert across <= np.abs(np.diff(paste[180].astype(float), axis=0)).max()


@pytest.mark.parametrize("form", ["gradient", "printed", "code"])
@pytest.mark.parametrize("beta", [1.0, 0.01])
def test_every_form(task, photos, form, beta):
    source, destination, mask = photos
    got = task(source, destination, mask, method="gaussian-poisson", form=form, beta=beta).image
    far = np.abs(got.astype(int) - destination)[distance_beyond(mask, 64)].mean()
    # The less the colours weigh, the farther the seam's step is spread: that is what beta means.
    assert far < (1 if beta == 1 else 20)


def test_the_blending_gan_takes_the_light_of_the_surroundings(task):
    """The centre of a photograph, pasted back darker and redder: the network brings it nearer than it was."""
    photo = data.astronaut().astype(np.float32) / 255
    relit = photo**1.6 * np.array([1.0, 0.85, 0.75], np.float32)
    mask = np.zeros(photo.shape[:2], bool)
    mask[128:384, 128:384] = True
    error = {
        method: np.abs(task(relit, photo, mask, method=method).image - photo)[mask].mean()
        for method in ("paste", "gp-gan")
    }
    assert error["gp-gan"] < 0.5 * error["paste"]


# --- placing -------------------------------------------------------------------------------------------------------


def test_at_places_the_piece(task):
    destination = np.zeros((40, 60, 3), np.uint8)
    source = np.full((10, 20, 3), 200, np.uint8)
    result = task(source, destination, np.ones((10, 20)), at=(30, 5), method="paste").image
    assert (result[5:15, 30:50] == 200).all()
    assert result.sum() == 200 * 10 * 20 * 3


@pytest.mark.parametrize(("at", "pixels"), [((-15, 0), 50), ((55, 35), 25), ((-5, -5), 75)])
def test_a_piece_may_hang_over_the_border(task, at, pixels):
    destination = np.zeros((40, 60, 3), np.uint8)
    source = np.full((10, 20, 3), 200, np.uint8)
    result = task(source, destination, np.ones((10, 20)), at=at, method="paste").image
    assert (result[..., 0] == 200).sum() == pixels
    for method in METHODS[:-1]:
        assert task(source, destination, np.ones((10, 20)), at=at, method=method).image.shape == (40, 60, 3)


def test_scale_enlarges_piece_and_mask(task):
    destination = np.zeros((40, 60, 3), np.uint8)
    source = np.full((10, 20, 3), 200, np.uint8)
    result = task(source, destination, np.ones((10, 20)), at=(0, 0), scale=1.5, method="paste").image
    assert (result[:15, :30] == 200).all()
    assert not result[15:].any()


def test_the_sources_alpha_is_the_mask(task):
    source = np.zeros((20, 20, 4), np.uint8)
    source[5:15, 5:15] = 255
    destination = np.full((20, 20, 3), 10, np.uint8)
    result = task(source, destination, method="paste").image
    np.testing.assert_array_equal(result[..., 0] == 255, source[..., 3] == 255)
    half = np.zeros((20, 20), bool)
    half[:, :10] = True
    assert (task(source, destination, half, method="paste").image[..., 0] == 255).sum() == 50


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hidden", ["black", "white", "noise"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_cut_outs_hidden_colours_do_not_matter(task, photos, method, hidden, soft):
    """A piece of the destination itself, cut out as drawing programs leave it, must not change it."""
    _, photo, mask = photos
    alpha = np.clip(300 - 2 * np.hypot(*np.mgrid[-180:180, -240:240]), 0, 255) if soft else mask * 255.0
    alpha = alpha.astype(np.uint8)
    under = {"black": 0, "white": 255, "noise": np.random.default_rng(0).integers(0, 256, photo.shape)}[hidden]
    colours = np.where(alpha[..., None] > 0, photo, under).astype(np.uint8)
    result = task(np.dstack([colours, alpha]), photo, method=method).image
    np.testing.assert_array_equal(result, photo)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.5, 2.0])
def test_scaling_a_flat_source_leaves_it_flat(task, method, scale):
    source, mask = np.full((40, 40, 3), 128, np.uint8), np.zeros((40, 40), np.uint8)
    mask[12:30, 10:25] = 255
    result = task(source, np.full((90, 90, 3), 128, np.uint8), mask, at=(3, 5), scale=scale, method=method).image
    assert (result == 128).all()


def test_scaling_makes_only_what_is_seen(task):
    """At 64 times the whole source would have a thousand megapixels."""
    source, mask = np.full((400, 600, 3), 50, np.uint8), np.ones((400, 600), bool)
    destination = np.zeros((100, 100, 3), np.uint8)
    assert (task(source, destination, mask, at=(-9000, -9000), scale=64, method="paste").image == 50).all()


@pytest.mark.parametrize("method", METHODS)
def test_colours_under_a_transparent_destination_do_not_matter(task, photos, method):
    source, destination, mask = photos
    alpha = np.zeros((360, 480), np.uint8)
    alpha[:, 200:] = 255
    rng = np.random.default_rng(0)
    results = []
    for hidden in (np.zeros_like(destination), rng.integers(0, 256, destination.shape, dtype=np.uint8)):
        colours = np.where(alpha[..., None] > 0, destination, hidden)
        results.append(task(source, np.dstack([colours, alpha]), mask, method=method).image.astype(int))
    visible = results[0][..., 3] > 0
    assert np.abs(results[0] - results[1])[visible].max() <= 1


def test_the_background_of_float_images_stays_bit_for_bit(task):
    rng = np.random.default_rng(0)
    destination = rng.random((700, 700, 3)).astype(np.float32)
    source, mask = rng.random((60, 60, 3)).astype(np.float32), np.ones((60, 60), bool)
    result = task(source, destination, mask, at=(20, 20), method="gaussian-poisson").image
    np.testing.assert_array_equal(result[400:, 400:], destination[400:, 400:])


def test_a_model_of_the_users_own_is_named(photos, tmp_path):
    from velatura.catalog import card

    own = tmp_path / "my-net.safetensors"
    own.write_bytes(card("blending-gan").path.read_bytes())
    assert Blend.from_pretrained(own)(*photos).made_by == "my-net"


def test_the_memory_bounds_the_windows_not_the_result(photos):
    small, usual = (
        Blend.from_pretrained(memory=memory)(*photos, method="gaussian-poisson").image for memory in (1, 512)
    )
    assert np.abs(small.astype(int) - usual).max() <= 1


def test_scaling_draws_no_colour_from_under_a_transparent_edge(task):
    source = np.zeros((20, 20, 4), np.uint8)
    source[5:15, 5:15] = 200
    result = task(source, np.full((40, 40, 3), 200, np.uint8), scale=2.0, method="paste").image
    assert result.min() >= 199


# --- depth, channels, alpha, forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_destination_decides_depth_and_channels(task, photos, method):
    source, destination, mask = photos
    grey = destination[..., 0]
    assert task(source, grey, mask, method=method).image.shape == grey.shape
    deep = destination.astype(np.uint16) * 257
    result = task(source, deep, mask, method=method).image
    assert result.dtype == np.uint16
    eight = task(source, destination, mask, method=method).image
    assert np.abs(result / 257 - eight).max() <= 1.01  # 8 bits round; the solution is the same
    assert task(source[..., 0], destination, mask, method=method).image.shape == destination.shape


@pytest.mark.parametrize("method", METHODS)
def test_a_transparent_destination(task, photos, method):
    source, destination, mask = photos
    alpha = np.zeros((360, 480, 1), np.uint8)
    alpha[:, 240:] = 255
    garbage = np.where(alpha > 0, destination, 255)  # colours that nobody sees
    result = task(source, np.concatenate([garbage, alpha], -1), mask, method=method).image
    assert result.shape == (360, 480, 4)
    np.testing.assert_array_equal(result[..., 3], np.maximum(alpha[..., 0], mask * np.uint8(255)))
    # Over nothing the piece keeps its own colours: the unseen white must not bleed in.
    deep_left = mask.copy()
    deep_left[:, 160:] = False
    shift = np.abs(result[..., :3].astype(float) - source)[deep_left].mean()
    if method in ("paste", "gaussian-poisson"):
        assert shift < 2


def test_the_sources_colours_are_converted_to_the_destinations_profile(task):
    from PIL import ImageCms

    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The primaries of red and green change places: the same colour has its first two numbers exchanged.
    swapped = plain.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")
    source, destination = Image.new("RGB", (8, 8), (200, 120, 40)), Image.new("RGB", (8, 8))
    source.info["icc_profile"], destination.info["icc_profile"] = swapped, plain
    result = task(source, destination, np.ones((8, 8), bool), method="paste").image
    assert result.info["icc_profile"] == plain
    assert np.abs(np.asarray(result, int) - (120, 200, 40)).max() <= 1


def test_forms_go_out_as_they_came(task, photos, tmp_path):
    import torch

    source, destination, mask = photos
    expected = task(source, destination, mask, method="poisson").image
    pil = task(Image.fromarray(source), Image.fromarray(destination), Image.fromarray(mask), method="poisson").image
    assert isinstance(pil, Image.Image)
    np.testing.assert_array_equal(np.asarray(pil), expected)
    tensor = torch.from_numpy(destination.copy()).permute(2, 0, 1)
    got = task(source, tensor, mask, method="poisson").image
    assert got.shape == (3, 360, 480)
    np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), expected)
    for name, array in (("s.png", source), ("d.png", destination), ("m.png", mask)):
        Image.fromarray(array).save(tmp_path / name)
    out = task.to_file(
        tmp_path / "s.png", tmp_path / "d.png", tmp_path / "m.png", out=tmp_path / "o.png", method="poisson"
    )
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)


@pytest.mark.parametrize("method", METHODS)
def test_files_hold_what_memory_holds_and_say_who_made_it(task, photos, tmp_path, method):
    expected = task(*photos, method=method)
    out = task.to_file(*photos, out=tmp_path / "o.png", method=method)
    saved = expected.save(tmp_path / "p.png")
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected.image)
    assert out.read_bytes() == saved.read_bytes()
    marked = b"DigitalSourceType" in out.read_bytes()
    assert marked == (method == "gp-gan")
    plain = task.to_file(*photos, out=tmp_path / "q.png", method=method, save=SaveOptions(mark=False))
    assert b"DigitalSourceType" not in plain.read_bytes()


# --- progress and errors -------------------------------------------------------------------------------------------


def test_progress_reaches_its_end_and_can_cancel(task, photos, tmp_path):
    calls = []
    task(*photos, method="gaussian-poisson", progress=lambda *call: calls.append(call))
    assert calls[-1][:2] == (360, 360)
    assert [call[0] for call in calls] == sorted(call[0] for call in calls)

    def stop(done, total, stage):
        raise velatura.Cancelled("enough")

    with pytest.raises(velatura.Cancelled):
        task.to_file(*photos, out=tmp_path / "never.png", progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        ("small source", {}, "--at"),
        ("empty mask", {}, "empty"),
        ("small mask", {}, "mask of the source's size"),
        ("no mask", {}, "no alpha"),
        ("none", {"at": (600, 0)}, "outside"),
        ("none", {"beta": 0}, "beta"),
        ("none", {"scale": -1}, "scale"),
        ("none", {"method": "posson"}, "poisson"),
        ("none", {"betta": 1}, "did you mean 'beta'"),
        ("none", {"at": "1,2,3"}, "at"),
    ],
)
def test_bad_input_is_one_clear_line(task, photos, change, params, message):
    source, destination, mask = photos
    match change:
        case "small source":
            source, mask = source[:50], mask[:50]
        case "empty mask":
            mask = np.zeros_like(mask)
        case "small mask":
            mask = mask[:50]
        case "no mask":
            mask = None
    with pytest.raises(InputError, match=message) as error:
        task(source, destination, mask, **params)
    assert "\n" not in str(error.value)


def test_a_mask_that_lies_outside_is_said_to(task):
    mask = np.zeros((10, 10), bool)
    mask[:, :3] = True
    with pytest.raises(InputError, match="where it lies"):
        task(np.zeros((10, 10, 3), np.uint8), np.zeros((20, 20, 3), np.uint8), mask, at=(-5, 0))


def test_the_function_is_the_class(photos):
    result = blend(*photos, method="gaussian-poisson")
    np.testing.assert_array_equal(result.image, Blend.from_pretrained()(*photos, method="gaussian-poisson").image)
    assert result.params.beta == 1
