import numpy as np
import pytest
from skimage import data

from velatura.ops.exemplar import fill_by_exemplar
from velatura.ops.poisson import membrane


def holed(image, box):
    hole = np.zeros(image.shape[:2], bool)
    hole[box[0] : box[2], box[1] : box[3]] = True
    return image.astype(np.float32) / 255, hole


@pytest.fixture(scope="module")
def bricks():
    return holed(data.brick()[:160, :160, None], (60, 50, 100, 95))


def error(filled, image, hole):
    return float(np.sqrt(np.square(filled - image)[hole].mean()))


def test_bricks_go_on_where_a_membrane_is_blurred(bricks):
    image, hole = bricks
    spanned = np.moveaxis(membrane(np.ascontiguousarray(np.moveaxis(image, -1, 0)), hole), 0, -1)
    filled = fill_by_exemplar(image, hole)
    # Detail, not squared error, is what a texture is judged by.
    detail = [np.abs(np.diff(x[..., 0], axis=1))[hole[:, 1:]].mean() for x in (filled, image, spanned)]
    assert 0.6 < detail[0] / detail[1] < 1.4
    assert detail[2] / detail[1] < 0.5


def test_what_is_known_stays_bit_for_bit(bricks):
    image, hole = bricks
    before = image.copy()
    filled = fill_by_exemplar(image, hole)
    assert np.array_equal(filled[~hole], image[~hole])
    assert np.array_equal(image, before)


def test_the_seed_decides(bricks):
    image, hole = bricks
    first = fill_by_exemplar(image, hole, seed=1)
    assert np.array_equal(first, fill_by_exemplar(image, hole, seed=1))
    assert not np.array_equal(first, fill_by_exemplar(image, hole, seed=2))


def test_what_is_in_the_hole_does_not_matter(bricks):
    image, hole = bricks
    other = np.where(hole[..., None], 1 - image, image)
    assert np.array_equal(fill_by_exemplar(image, hole), fill_by_exemplar(other, hole))


def test_stripes_are_found_again():
    stripes = np.tile(np.float32([0, 0, 0, 1, 1, 1]), (60, 11))[..., None]
    hole = np.zeros(stripes.shape[:2], bool)
    hole[20:40, 22:41] = True
    assert error(fill_by_exemplar(stripes, hole), stripes, hole) < 0.1


@pytest.mark.parametrize("shape", [(3, 3), (5, 40), (9, 9), (40, 12)])
def test_small_images_fall_back_to_a_membrane(shape):
    image = np.full((*shape, 3), 0.25, np.float32)
    hole = np.zeros(shape, bool)
    hole[1:-1, 1:-1] = True
    np.testing.assert_allclose(fill_by_exemplar(image, hole), 0.25, atol=1e-3)


def test_it_can_be_stopped(bricks):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_by_exemplar(*bricks, tick=stop)
