"""From a photograph to the small square and back."""

import tracemalloc

import cv2
import numpy as np
import pytest
from inpainters import upright
from test_faces import Bright, photograph

from velatura.completion import (
    as_channels,
    covers,
    cut,
    holds,
    look_for_faces,
    place_of_face,
    place_of_whole,
    put_back,
)
from velatura.faces import Face
from velatura.image import Picture

WHOLE = slice(0, 240), slice(0, 320)


@pytest.fixture(scope="module")
def picture():
    return Picture(photograph(240, 320))


@pytest.fixture
def known():
    known = np.ones((240, 320), bool)
    known[90:130, 120:170] = False
    return known


def turned(face, angle):
    """The same face, turned about its nose."""
    points = np.asarray(face.landmarks)
    cosine, sine = np.cos(angle), np.sin(angle)
    points = (points - points[2]) @ [[cosine, sine], [-sine, cosine]] + points[2]
    return Face(face.box, tuple(map(tuple, points)), 1.0)


def psnr(a, b):
    return -10 * np.log10(np.square(a - b).mean())


# --- the whole photograph ---------------------------------------------------------------------------------------------


def test_the_very_size_is_cut_and_put_back_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    picture, known = Picture(pixels), np.ones((64, 64), bool)
    known[20:40, 10:30] = False
    place = place_of_whole(64, 64, 64)
    image, mask = cut(picture, known, place)
    assert np.array_equal(mask == 1, ~known)
    assert np.abs(image.transpose(1, 2, 0) - pixels / 255)[known].max() < 1e-6
    back = put_back(pixels / np.float32(255), place, picture, known, (slice(0, 64), slice(0, 64)))
    assert np.abs(back - pixels / 255).max() < 2e-3


def test_a_whole_photograph_is_averaged_in_a_square():
    pixels = np.random.default_rng(0).integers(0, 256, (128, 256, 1), np.uint8)
    place = place_of_whole(128, 256, 64)
    image, mask = cut(Picture(pixels), np.ones((128, 256), bool), place)
    inside = cv2.resize(pixels[..., 0] / 255, (64, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(image[0, 16:48] - inside).max() < 1e-5
    assert not mask.any()
    # Beyond the photograph its border goes on.
    assert np.abs(image[0, :15] - inside[:4].mean()).max() < 0.4
    assert image[0, :16].std() < inside.std()


def test_a_hole_never_bleeds(picture, known):
    other = picture.pixels.copy()
    other[~known] = 255 - other[~known]
    for place in (place_of_whole(240, 320, 64), place_of_face(upright(100, 60, 100), 64)):
        first, second = cut(picture, known, place), cut(Picture(other), known, place)
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])
        assert 0 < first[1].mean() < 1


def test_pixels_by_themselves_are_known_in_the_mean(picture):
    known = np.random.default_rng(0).random((240, 320)) < 0.4
    place = place_of_whole(240, 320, 64)
    image, mask = cut(picture, known, place)
    full, _ = cut(picture, np.ones_like(known), place)
    assert mask[8:56].mean() < 0.2
    assert psnr(image[:, mask == 0], full[:, mask == 0]) > 25


# --- a face -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "angle"), [(40, 0.0), (100, 0.0), (100, 0.4), (170, -0.3)])
def test_there_and_back(picture, side, angle):
    """What is cut out and put back, unchanged, is the photograph: at 64 pixels of a smooth one nearly."""
    place = place_of_face(turned(upright(110, 40, side), angle), 64)
    nothing_lost, mask = cut(picture, np.ones((240, 320), bool), place)
    assert not mask.any()
    known = np.ones((240, 320), bool)
    known[52:72, 122:142] = False
    part = slice(48, 76), slice(118, 146)
    inside = covers(place, part, known.shape) & ~known[part]
    assert inside.sum() > 300
    back = put_back(np.ascontiguousarray(nothing_lost.transpose(1, 2, 0)), place, picture, known, part)
    given = picture.pixels[part] / 255
    assert psnr(back[inside], given[inside]) > 35
    assert np.allclose(back[known[part]], given[known[part]], atol=1e-6)


def test_what_lies_beyond_the_photograph_is_hole(picture):
    image, mask = cut(picture, np.ones((240, 320), bool), place_of_face(upright(-50, 60, 100), 64))
    assert mask[:, :31].all()
    assert not mask[:, 33:].any()
    assert np.isfinite(image).all()


def test_a_fill_is_joined_to_what_is_around(picture, known):
    place = place_of_face(upright(90, 40, 128), 64)
    part = slice(88, 132), slice(118, 172)
    image, _ = cut(picture, np.ones_like(known), place)
    # The right fill in another light: joining takes the light away.
    square = 0.5 * np.ascontiguousarray(image.transpose(1, 2, 0)) + 0.5
    back = put_back(square, place, picture, known, part)
    hole, given = ~known[part], picture.pixels[part] / 255
    unjoined = 0.5 * given + 0.5
    assert np.abs(back - given)[2, 2:-2].max() < 0.1  # the rim
    assert psnr(back[hole], given[hole]) > psnr(unjoined[hole], given[hole]) + 6


def test_what_was_filled_before_stays_and_is_joined_to(picture, known):
    place = place_of_face(upright(100, 60, 40), 64)  # its square ends at column 140, and at row 100
    part = slice(90, 130), slice(120, 170)
    before, there = np.full((40, 50, 3), 0.25, np.float32), np.zeros((40, 50), bool)
    there[:, 15:] = True
    back = put_back(np.full((64, 64, 3), 0.9, np.float32), place, picture, known, part, (before, there))
    mine = covers(place, part, known.shape) & ~there
    assert 0 < mine.mean() < 1
    assert (back[there] == 0.25).all()
    assert np.abs(back[2:9, 14] - 0.25).mean() < 0.2
    assert np.allclose(back[~mine & ~there], (picture.pixels[part] / 255)[~mine & ~there], atol=1e-6)
    alone = put_back(np.full((64, 64, 3), 0.9, np.float32), place, picture, known, part)
    assert np.abs(alone[2:9, 14] - 0.25).mean() > 0.3


def test_only_windows_of_a_large_photograph_are_converted():
    picture = Picture(np.zeros((3000, 4000, 3), np.uint8))
    known = np.ones((3000, 4000), bool)
    part = slice(1000, 1200), slice(1000, 1200)
    known[part] = False
    place = place_of_face(upright(900, 800, 600), 64)
    tracemalloc.start()
    image, _ = cut(picture, known, place)
    put_back(np.zeros((256, 256, 3), np.float32), place, picture, known, part)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert image.shape == (3, 64, 64)
    assert peak < 80 << 20


# --- which holes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hole", "expected"),
    [
        ((100, 100, 30, 30), True),  # on the face
        ((10, 10, 30, 30), False),  # beside it
        ((110, 110, 3, 3), False),  # too small for 64 pixels to show
        ((100, 100, 1, 60), False),  # too thin
        ((60, 60, 160, 160), True),  # all of it and more
        ((150, 160, 60, 120), False),  # mostly beside it
    ],
)
def test_which_holes_are_the_faces(hole, expected):
    top, left, height, width = hole
    part = slice(top, top + height), slice(left, left + width)
    assert holds(upright(80, 70, 100), np.ones((height, width), bool), part, (240, 320), 64) is expected


def test_faces_are_found_where_they_lie_under_a_smooth_filling():
    pixels = np.zeros((600, 2048, 3), np.uint8)  # looked at in half the size
    known = np.ones((600, 2048), bool)
    pixels[300:348, 860:908] = 255
    pixels[100:140, 100:140] = 255
    known[90:150, 90:150] = False  # what a hole holds is no face
    faces = look_for_faces(Picture(pixels), known, Bright())
    assert faces
    for face in faces:
        left, top, right, bottom = face.box
        assert left < 884 < right
        assert top < 324 < bottom
        assert face.landmarks[0][0] < face.landmarks[1][0]


def test_grey_and_colour():
    colour = np.random.default_rng(0).random((2, 3, 4, 4)).astype(np.float32)
    grey = as_channels(colour, 1)
    assert np.allclose(grey[:, 0], np.einsum("nchw,c->nhw", colour, [0.299, 0.587, 0.114]), atol=1e-6)
    assert np.array_equal(as_channels(as_channels(grey, 3), 1).round(5), grey.round(5))
    assert as_channels(colour, 3) is colour
