"""Refining faces: what changes, what does not, and that nothing shows where a face was put back."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

from velatura import InputError, ModelError, catalog
from velatura.face_refinement import SMALLEST, feather, load_refiner, refine, refine_in_place
from velatura.faces import TEMPLATE, Face
from velatura.nets.face_refiner import FaceRefiner

SIDE = 32


def face_at(x, y, side, turn=0.0):
    """A face whose upright crop has its corner at a place."""
    cosine, sine = np.cos(turn), np.sin(turn)
    points = (TEMPLATE - 0.5) @ np.array([[cosine, sine], [-sine, cosine]]) + 0.5
    points = points * side + (x, y)
    return Face((x, y, x + side, y + side), tuple(map(tuple, points)), 1.0)


class Adds(FaceRefiner):
    """A refiner that adds a picture."""

    def __init__(self, change, side=SIDE):
        super().__init__(side, (4, 4), (1, 1))
        self.change = torch.from_numpy(
            np.broadcast_to(change, (side, side, 3)).transpose(2, 0, 1).astype(np.float32).copy()
        )

    def forward(self, face):
        return face + self.change


@pytest.fixture
def photo():
    return np.ascontiguousarray(data.astronaut()[:200, 130:330]).astype(np.float32) / np.float32(255)


@pytest.fixture
def face():
    return face_at(60, 40, 96)


def bump():
    """A change that is nothing at the border of the crop."""
    place = np.linspace(-1, 1, SIDE)
    return 0.2 * np.exp(-6 * (place[:, None] ** 2 + place**2))[..., None]


def test_strength_zero_is_the_identity(photo, face):
    assert refine(photo, strength=0, faces=[face], refiner=Adds(bump())) is photo


def test_only_faces_change_and_the_given_image_does_not(photo, face):
    before = photo.copy()
    made = refine(photo, faces=[face], refiner=Adds(bump()))
    assert np.array_equal(photo, before)
    outside = np.ones(photo.shape[:2], bool)
    outside[40:136, 60:156] = False
    assert np.array_equal(made[outside], photo[outside])
    assert (made - photo).max() > 0.1


def test_in_place_it_takes_no_second_image(photo, face):
    large = np.tile(photo, (6, 6, 1))
    expected = refine(large, faces=[face], refiner=Adds(bump()))
    net = Adds(bump())
    tracemalloc.start()
    refine_in_place(large, faces=[face], refiner=net)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(large, expected)
    assert peak < large.nbytes / 4


def test_strength_is_the_share_of_the_change(photo, face):
    dark = photo * np.float32(0.7)
    whole, half = (refine(dark, strength=s, faces=[face], refiner=Adds(bump())) - dark for s in (1, 0.5))
    np.testing.assert_allclose(half, whole / 2, atol=1e-6)


def test_a_change_of_tone_leaves_no_patch(photo, face):
    """A refiner that makes the whole crop lighter changes nothing: that would stand around the face."""
    made = refine(photo * np.float32(0.8), faces=[face], refiner=Adds(0.1))
    assert np.abs(made - photo * np.float32(0.8)).max() < 2e-3


@pytest.mark.parametrize("turn", [0, 0.3])
def test_nothing_shows_around_a_face(turn):
    grey = np.full((160, 160, 3), 0.5, np.float32)
    rng = np.random.default_rng(0)
    change = 0.1 + gaussian_filter(rng.normal(0, 1, (SIDE, SIDE, 3)), (4, 4, 0))
    made = refine(grey, faces=[face_at(32, 32, 96, turn)], refiner=Adds(change))
    difference = made - grey
    assert np.abs(difference).max() > 0.02
    steps = max(np.abs(np.diff(difference, axis=axis)).max() for axis in (0, 1))
    inner = difference[48:112, 48:112]
    assert steps <= 1.2 * max(np.abs(np.diff(inner, axis=axis)).max() for axis in (0, 1))  # no edge but its own


def test_a_face_larger_than_the_crop_keeps_its_detail(photo):
    face = face_at(20, 20, 160)
    made = refine(photo * np.float32(0.7), faces=[face], refiner=Adds(bump()))
    fine, before = (one - gaussian_filter(one, (2, 2, 0)) for one in (made, photo * np.float32(0.7)))
    np.testing.assert_allclose(fine, before, atol=0.01)


def test_small_faces_are_left_alone(photo):
    assert np.array_equal(refine(photo, faces=[face_at(50, 50, SMALLEST - 1)], refiner=Adds(bump())), photo)
    assert not np.array_equal(refine(photo, faces=[face_at(50, 50, SMALLEST + 1)], refiner=Adds(bump())), photo)


def test_what_holds_a_surer_face_is_none(photo, face):
    around = replace(face_at(20, 10, 170), score=0.6)
    alone, both = (refine(photo, faces=faces, refiner=Adds(bump())) for faces in ([face], [around, face]))
    assert np.array_equal(alone, both)


def test_a_face_without_colour_stays_so(photo, face):
    grey = photo.mean(2, keepdims=True).repeat(3, 2).astype(np.float32)
    tint = bump() * np.array([1.0, 0.5, 0.0])
    made = refine(grey, faces=[face], refiner=Adds(tint))
    assert np.array_equal(made[..., 0], made[..., 1])
    assert np.array_equal(made[..., 0], made[..., 2])
    assert not np.array_equal(made, grey)


def test_faces_at_the_border_and_over_one_another(photo):
    faces = [face_at(-40, -30, 96), face_at(150, 140, 96), face_at(40, 60, 80), face_at(90, 90, 80)]
    made = refine(photo, faces=faces, refiner=Adds(bump()))
    assert made.shape == photo.shape
    assert np.isfinite(made).all()
    assert (made >= 0).all()
    assert (made <= 1).all()


def test_the_mask_holds_the_face_and_ends_within_the_crop():
    mask = feather(128)
    assert mask.max() == 1
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) == 0
    assert mask[40:100, 40:90].min() == 1  # eyes, nose, mouth
    assert mask[11:124, 22:106].mean() > 0.75  # the box


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint8)])
def test_other_images_are_refused(image):
    with pytest.raises(InputError, match="expected float32"):
        refine(image)


def test_a_missing_model_is_told(photo, face, monkeypatch, tmp_path):
    monkeypatch.setattr(catalog, "WEIGHTS", tmp_path)
    load_refiner.cache_clear()
    with pytest.raises(ModelError, match="face-refiner"):
        refine(photo, faces=[face])
