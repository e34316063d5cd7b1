import numpy as np
import pytest
from skimage.data import astronaut

from velatura.ops import damage
from velatura.ops.damage import FAMILIES, Wear, old_scan

UNIT = (astronaut()[40:168, 160:256] / 255).astype(np.float32)
FLAT = np.full((96, 128, 3), 0.5, np.float32)
PERFECT = Wear(grey=0, lens=0, printed=0, faded=0, damaged=0, copied=(0, 0, 0, 0), scanned=0)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_a_function_of_image_and_generator(name):
    before = UNIT.copy()
    image, cover = FAMILIES[name](UNIT, rng(3))
    again, same = FAMILIES[name](UNIT, rng(3))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(cover, same)
    np.testing.assert_array_equal(UNIT, before)
    assert image.shape == UNIT.shape
    assert cover.shape == UNIT.shape[:2]
    assert image.dtype == cover.dtype == np.float32


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cover_is_where_the_image_has_changed(name):
    """Everything visible is covered, and most of what is covered is visible on grey."""
    changed, covered, both = 0, 0, 0
    for seed in range(12):
        image, cover = FAMILIES[name](FLAT, rng(seed))
        assert image.min() >= 0
        assert image.max() <= 1
        assert cover.min() >= 0
        assert cover.max() <= 1
        visible, truth = np.abs(image - FLAT).max(2) > 0.06, cover > damage.COVERED
        changed, covered, both = changed + visible.sum(), covered + truth.sum(), both + (visible & truth).sum()
        assert not (visible & (cover == 0)).any()
    assert both > 0.75 * changed
    assert both > 0.75 * covered


def test_families_are_as_large_as_they_say():
    share = {name: np.mean([family(FLAT, rng(i))[1] > 0.25 for i in range(20)]) for name, family in FAMILIES.items()}
    assert all(0.002 < value < 0.25 for value in share.values()), share
    assert share["patches"] > 1.5 * share["scratches"]


def test_a_line_is_as_wide_as_asked():
    cover = np.zeros((40, 60), np.float32)
    path = damage.Path(np.arange(10, 50, 0.5), np.full(80, 20.5))
    damage._drawn(cover, path, np.full(80, 1.5))
    np.testing.assert_allclose(cover[:, 30].sum(), 3.0, atol=0.05)
    np.testing.assert_array_equal(cover[18:23, 30] > 0.25, [False, True, True, True, False])
    cover[:] = 0
    damage._drawn(cover, path, np.full(80, 0.2))
    assert cover.max() == pytest.approx(0.4)


def test_nothing_happens_where_nothing_may():
    worn = old_scan(UNIT, rng(), PERFECT)
    np.testing.assert_allclose(worn.image, UNIT, atol=0.5 / 255 + 1e-6)
    assert not worn.mask.any()
    assert worn.original is UNIT
    assert worn.faded is UNIT


def test_the_same_state_gives_the_same_scan():
    for one, two in zip(old_scan(UNIT, rng(5))[:4], old_scan(UNIT, rng(5))[:4], strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((old_scan(UNIT, rng(5)).image != old_scan(UNIT, rng(seed)).image).any() for seed in (6, 7))


def test_only_the_families_named_are_drawn():
    wear = Wear(grey=0, lens=0, printed=0, faded=0, damaged=1, most=1, copied=(0, 0, 0, 0), scanned=0)
    once = [old_scan(FLAT, rng(i), wear, ["patches"]) for i in range(6)]
    assert all(0.005 < worn.mask.mean() < 0.3 for worn in once)
    lines = [old_scan(FLAT, rng(i), wear, ["hairs"]).mask.mean() for i in range(6)]
    assert max(lines) < 0.06


def test_stains_are_told_from_what_is_lost():
    wear = Wear(grey=0, lens=0, printed=0, faded=0, damaged=1, most=2, copied=(0, 0, 0, 0), scanned=0)
    both = [old_scan(FLAT, rng(i), wear, ["patches", "stains"]) for i in range(12)]
    assert not any((worn.mask * worn.stained).any() for worn in both)
    assert any(worn.mask.any() and worn.stained.any() for worn in both)
    assert all(worn.damage.max() == 1 for worn in both)
    only = old_scan(FLAT, rng(1), wear, ["stains"])
    assert not only.mask.any()
    assert only.stained.any()


def test_damage_lies_over_the_noise_of_a_print(monkeypatch):
    def square(image, _):
        cover = np.zeros(image.shape[:2], np.float32)
        cover[8:24, 8:24] = 1
        return np.where(cover[..., None] > 0, np.float32(1), image), cover

    monkeypatch.setitem(damage.FAMILIES, "square", square)
    wear = Wear(grey=0, lens=0, printed=0, faded=0, damaged=1, copied=(1, 0, 0, 0), scanned=0)
    worn = old_scan(FLAT, rng(3), wear, ["square"])
    assert (worn.image[worn.mask > 0] == 1).all()
    assert worn.image[worn.mask == 0].std() > 0.005


def test_faded_and_original_go_together():
    from velatura.ops.degrade import fade

    wear = Wear(grey=0, lens=0, printed=0, faded=1, damaged=0, copied=(0, 0, 0, 0), scanned=0)
    worn = old_scan(UNIT, rng(2), wear)
    np.testing.assert_array_equal(worn.faded, fade(worn.original, worn.fading))
    np.testing.assert_allclose(worn.image, worn.faded, atol=0.5 / 255 + 1e-6)
    assert np.abs(worn.faded - worn.original).mean() > 0.02


def test_half_of_the_grey_scans_have_no_colour_at_all():
    wear = Wear(grey=1, faded=1)
    scans = [old_scan(UNIT, rng(seed), wear) for seed in range(24)]
    for worn in scans:
        np.testing.assert_allclose(worn.original, worn.original[..., :1].repeat(3, 2), atol=1e-6)
    colorless = [worn for worn in scans if np.ptp(worn.image, axis=2).max() < 1e-6]
    assert 6 <= len(colorless) <= 18
    assert all(np.ptp(worn.faded, axis=2).max() < 1e-5 for worn in colorless)


def test_what_comes_out_is_eight_bit():
    worn = old_scan(UNIT, rng(9))
    np.testing.assert_allclose(255 * worn.image, np.rint(255 * worn.image), atol=1e-4)
    assert worn.image.dtype == worn.mask.dtype == worn.faded.dtype == np.float32
