"""Finding, aligning, warping back. The net here is one whose answers are known: a bright square is a face."""

import tracemalloc

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from velatura.errors import InputError, ModelError
from velatura.faces import TEMPLATE, Face, Transform, align, find_faces, fit_similarity, paste, suppress, warp_back
from velatura.image import Picture
from velatura.nets.face_finder import CHANNELS, STRIDE, UNIT

SIZE = 24  # of the face that `Bright` finds at a bright place, in pixels of the level it looks at


class Bright(nn.Module):
    """Says that every cell whose pixel is white is the middle of a face of `SIZE` pixels."""

    receptive_radius = 63

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.looks = []

    def forward(self, image):
        self.looks.append(tuple(image.shape[2:]))
        brightness = image[:, :, ::STRIDE, ::STRIDE].mean(1)
        maps = torch.zeros(1, CHANNELS, *brightness.shape[1:])
        maps[:, 0] = 40 * (brightness - 0.9)
        maps[:, 3:5] = float(np.log(SIZE / UNIT))
        maps[:, 5:] = torch.tensor([-4.0, -3, 4, -3, 0, 1, -3, 5, 3, 5]).view(1, 10, 1, 1) / UNIT
        return maps


def upright(left, top, size):
    points = TEMPLATE * size + (left, top)
    return Face((left, top, left + size, top + size), tuple(map(tuple, points)), 1.0)


def photograph(height, width, seed=0):
    """Something smooth enough to be warped there and back."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


# --- finding ----------------------------------------------------------------------------------------------------------


def test_places_are_those_of_the_picture():
    picture = np.zeros((160, 200), np.uint8)
    picture[40, 88] = 255  # only this pixel of the first level is white; halved, it is grey
    (face,) = find_faces(picture, Bright())
    assert face.box == pytest.approx((88.5 - 12, 40.5 - 12, 88.5 + 12, 40.5 + 12), abs=1e-4)
    assert face.landmarks[0] == pytest.approx((84.5, 37.5), abs=1e-4)
    assert face.size == pytest.approx(SIZE)
    assert 0.5 < face.score < 1


def test_large_faces_are_found_in_smaller_pictures():
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[124:140, 124:140] = 255  # a cell of every level lies on it, or beside
    sizes = {round(face.size) for face in find_faces(picture, Bright())}
    assert max(sizes) > 2 * SIZE


@pytest.mark.parametrize(
    ("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0), (np.float64, 1.0)]
)
def test_every_depth_and_grey_give_the_same(dtype, white):
    picture = np.zeros((120, 80, 1), dtype)
    picture[40, 40] = white
    faces = find_faces(picture, Bright())
    assert faces == find_faces(np.repeat(picture, 3, axis=2), Bright())
    assert [round(face.box[0], 2) for face in faces] == [28.5]


def test_a_picture_of_ours_is_taken():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[32, 32] = 255
    assert find_faces(Picture(picture), Bright()) == find_faces(picture, Bright())


def test_looks_follow_the_rule():
    net = Bright()
    find_faces(np.zeros((2048, 1024, 3), np.uint8), net)
    # The first look has 1,024 pixels on the longer side, in tiles; the last has at most 52.
    assert max(max(look) for look in net.looks) <= 640 + 64
    assert net.looks[-3:] == [(128, 64), (64, 32), (32, 16)]
    assert sum(rows * cols for rows, cols in net.looks) > 1024 * 512
    half = Bright()
    find_faces(np.zeros((2048, 1024, 3), np.uint8), half, smallest=64)
    assert half.looks[0] == (512, 256)


def test_tiles_find_what_the_whole_finds(monkeypatch):
    torch.manual_seed(0)
    from velatura import faces
    from velatura.nets.face_finder import FaceFinder

    net = FaceFinder((4, 6), 8, (1, 3)).eval()
    with torch.no_grad():
        net.last.bias[0] = 0
    picture = photograph(300, 430)
    tiled = []
    for side in (128, 1024):
        monkeypatch.setattr(faces, "SIDE", side)
        tiled.append(find_faces(picture, net, threshold=0.5))
    assert tiled[0]
    assert len(tiled[0]) == len(tiled[1])
    for one, other in zip(*tiled, strict=True):
        assert one.box == pytest.approx(other.box, abs=1e-3)


@pytest.mark.parametrize("wrong", [{"smallest": 8}, {"threshold": 0}, {"threshold": 1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="expected 16 or more"):
        find_faces(np.zeros((32, 32), np.uint8), Bright(), **wrong)


@pytest.mark.parametrize("array", [np.zeros((0, 4, 3)), np.zeros(5), np.zeros((4, 4, 4)), np.zeros((4, 4), np.int64)])
def test_what_is_no_picture_is_refused(array):
    with pytest.raises(InputError, match="expected"):
        find_faces(array, Bright())


def test_an_unknown_finder_is_refused():
    from velatura.faces import load_finder

    with pytest.raises(ModelError, match="unknown model"):
        load_finder("no-such-finder")


def test_the_surest_stands_for_all_that_overlap_it():
    def row(left, score, size=20.0):
        return [left, 0, left + size, size, *([left] * 10), score]

    found = np.array([row(100, 0.6), row(1, 0.8), row(0, 0.9), row(12, 0.7), row(103, 0.55)])
    kept = suppress(found)
    # 12 overlaps 0 too little to be the same; 1 and 0 are averaged by their scores.
    assert kept[:, 14].tolist() == [0.9, 0.7, 0.6]
    assert kept[0, 0] == pytest.approx((0 * 0.9 + 1 * 0.8) / 1.7)
    assert kept[2, 0] == pytest.approx((100 * 0.6 + 103 * 0.55) / 1.15)


# --- warping ----------------------------------------------------------------------------------------------------------


def test_similarity_is_the_least_squares_one():
    points, onto = np.random.default_rng(1).random((2, 5, 2)) * 100
    ours = fit_similarity(points, onto)
    # Four unknowns a, b, u, v: x' = a x - b y + u, y' = b x + a y + v.
    (x, y), one, nil = points.T, np.ones(5), np.zeros(5)
    equations = np.concatenate([np.stack([x, -y, one, nil], 1), np.stack([y, x, nil, one], 1)])
    a, b, u, v = np.linalg.lstsq(equations, np.concatenate(onto.T))[0]
    np.testing.assert_allclose(ours.matrix, [[a, -b], [b, a]], atol=1e-10)
    np.testing.assert_allclose(ours.offset, [u, v], atol=1e-8)
    np.testing.assert_allclose(ours.inverse()(ours(points)), points, atol=1e-9)


def test_enlarging_agrees_with_opencv():
    picture = photograph(90, 120)
    face = upright(30, 20, 40)
    turned = Transform(np.array([[0.9, 0.2], [-0.2, 0.9]]), np.array([-5.0, 12.0]))(face.landmarks)
    crop, transform = align(picture, Face(face.box, tuple(map(tuple, turned)), 1.0), 96)
    # OpenCV counts from the middles of pixels.
    shift = transform.offset - 0.5 + transform.matrix @ (0.5, 0.5)
    matrix = np.concatenate([transform.matrix, shift[:, None]], axis=1)
    reference = cv2.warpAffine(picture, matrix, (96, 96), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(crop - reference / 255).mean() < 0.004


def test_shrinking_averages():
    stripes = np.zeros((512, 512, 1), np.uint8)
    stripes[:, ::2] = 255  # taken every eighth pixel they would be black or white
    crop, transform = align(stripes, upright(0, 0, 512), 64)
    assert transform.scale == pytest.approx(1 / 8)
    np.testing.assert_allclose(crop[4:-4, 4:-4], 0.5, atol=0.01)


def test_beyond_the_border_the_border_goes_on():
    picture = np.full((40, 40, 3), 200, np.uint8)
    crop, _ = align(picture, upright(-30, 20, 64), 64)
    np.testing.assert_allclose(crop, 200 / 255, atol=1e-4)


def test_landmarks_land_on_the_template():
    rng = np.random.default_rng(2)
    face = upright(5, 3, 50)
    turned = Transform(np.array([[0.6, -0.8], [0.8, 0.6]]), rng.random(2))(face.landmarks)
    _, transform = align(np.zeros((99, 99), np.uint8), Face(face.box, tuple(map(tuple, turned)), 1.0), 128)
    np.testing.assert_allclose(transform(turned), TEMPLATE * 128, atol=1e-9)


def test_one_point_is_no_face():
    with pytest.raises(InputError, match="one point"):
        align(np.zeros((9, 9), np.uint8), Face((0, 0, 1, 1), ((4.0, 4.0),) * 5, 1.0), 8)


@pytest.mark.parametrize("size", [40, 128])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_there_and_back(size, dtype):
    picture = photograph(150, 200).astype(dtype) * (257 if dtype == np.uint16 else 1)
    before = picture.copy()
    face = upright(60, 40, 64)
    crop, transform = align(picture, face, size)
    window = warp_back(crop, transform, picture)
    result = paste(picture, window)
    assert result.dtype == dtype
    assert np.array_equal(picture, before)
    white = 255 if dtype == np.uint8 else 65535
    assert np.abs(result.astype(float) - picture).mean() / white < 0.01
    outside = np.ones(picture.shape[:2], bool)
    outside[40:104, 60:124] = False
    assert np.array_equal(result[outside], picture[outside])


def test_only_where_the_mask_is_not_zero():
    picture = photograph(150, 200)
    crop, transform = align(picture, upright(60, 40, 64), 64)
    mask = np.zeros((64, 64), np.float32)
    mask[16:48, 16:48] = 1
    window = warp_back(np.ones_like(crop), transform, picture, mask)
    result = paste(picture, window)
    changed = (result != picture).any(2)
    assert changed[60:80, 80:100].all()
    changed[56:88, 76:108] = False
    assert not changed.any()
    assert (window.rows, window.cols) == (slice(40, 104), slice(60, 124))


def test_a_change_of_nothing_changes_nothing():
    picture = photograph(80, 90)
    crop, transform = align(picture, upright(10, 10, 50), 128)
    window = warp_back(crop - crop, transform, picture)
    assert not window.pixels.any()


def test_a_crop_outside_is_refused():
    with pytest.raises(InputError, match="outside"):
        warp_back(np.zeros((8, 8, 3), np.float32), Transform(np.eye(2), np.array([100.0, 0.0])), np.zeros((20, 20)))


def test_grey_pictures_keep_their_shape():
    picture = photograph(80, 90)[..., 0]
    crop, transform = align(picture, upright(10, 10, 50), 32)
    assert crop.shape == (32, 32, 1)
    assert paste(picture, warp_back(crop, transform, picture)).shape == picture.shape


def test_memory_is_that_of_the_face_not_of_the_photograph():
    picture = np.zeros((3000, 4000, 3), np.uint8)
    tracemalloc.start()
    crop, transform = align(picture, upright(1000, 1000, 400), 128)
    warp_back(crop, transform, picture)
    find_faces(picture, Bright())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20
