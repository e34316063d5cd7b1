"""The recipe of the face finder, with a teacher that says the same of every aligned face."""

import csv

import numpy as np
import pytest
import torch

from velatura.errors import InputError, ModelError
from velatura.faces import TEMPLATE, Face
from velatura.nets.face_finder import BAND, FaceFinder
from velatura.training import data, recipes
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import face_scenes, faces

BOX = [0.2, 0.1, 0.8, 0.9]
POINTS = [0.35, 0.4, 0.65, 0.4, 0.5, 0.6, 0.4, 0.75, 0.6, 0.75]
SMALL = ["stem=[4,4]", "width=4", "blocks=[0,1]", "side=64", "batch_size=2", "threads=1", "log_every=1", "warmup=0"]

REAL_TEACHER = face_scenes.Teacher


class SameTeacher:
    """Finds one face wherever it is asked to look with a margin or at a scene, and nothing elsewhere."""

    asked = 0

    def __init__(self, file):
        pass

    def __call__(self, image, enlarged=1.0, margin=0.0):
        SameTeacher.asked += 1
        if not margin and image.shape[0] != faces.SCENE_SIDE:
            return np.zeros((0, face_scenes.COLUMNS), np.float32)
        return np.array([[*BOX, *POINTS, 0.9, enlarged]], np.float32)


@pytest.fixture(scope="module", autouse=True)
def small_world():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face_scenes, "Teacher", SameTeacher)
        patch.setattr(faces, "PHOTOGRAPHS", ("sr_hr_patches",))
        patch.setattr(faces, "SCENES", 3)
        patch.setattr(faces, "SCENE_SIDE", 96)
        patch.setattr(faces, "TIMED", (64, 64))
        yield


@pytest.fixture(scope="module")
def settings(data_folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("labels") / "deep" / "labels.npz"
    return [*SMALL, f"data={data_folder}", f"labels={file}", "sets={scenes96=1,sr_hr_patches=2}"]


@pytest.fixture(scope="module")
def recipe(settings):
    return faces.TrainFaceFinder(make_config(faces.FaceFinderConfig, settings=settings))


# --- labels -----------------------------------------------------------------------------------------------------------


def few_images(*names):
    sizes = [(8 + i, 9, 3) for i in range(len(names))]
    pixels = np.zeros(sum(int(np.prod(size)) for size in sizes), np.uint8)
    return data.Images(tuple(names), pixels, np.array(sizes))


def test_labels_are_made_once(tmp_path):
    file = tmp_path / "labels.npz"
    images = few_images("faces128/a.webp", "scenes96/b.webp")
    SameTeacher.asked = 0
    made = face_scenes.read_labels(tmp_path / "teacher", [images], file)
    assert (len(made["faces128/a.webp"]), len(made["scenes96/b.webp"]), SameTeacher.asked) == (1, 0, 2)
    again = face_scenes.read_labels(tmp_path / "teacher", [images, few_images("scenes96/c.webp")], file)
    assert SameTeacher.asked == 3
    assert np.array_equal(again["faces128/a.webp"], made["faces128/a.webp"])


def test_a_damaged_file_of_labels_is_refused(tmp_path):
    (tmp_path / "labels.npz").write_bytes(b"no zip")
    with pytest.raises(ModelError, match="no file of labels"):
        face_scenes.read_labels(tmp_path / "teacher", [], tmp_path / "labels.npz")


def test_places_are_in_pixels():
    rows = np.array([[*BOX, *POINTS, 0.9, 1.0]], np.float32)
    found = face_scenes.places(rows, height=100, width=200)
    np.testing.assert_allclose(found[0, :6], [40, 10, 160, 90, 70, 40], rtol=1e-6)


@pytest.mark.training
def test_the_real_teacher_finds_real_faces(real_data):
    pytest.importorskip("cv2")
    teacher = REAL_TEACHER(real_data.parent / "pretrained" / face_scenes.TEACHER)
    images = data.read_set(real_data, "faces256", "held-out")
    found = [teacher(images[index], margin=0.25) for index in range(10)]
    points = [rows[np.abs(rows[:, :4].mean(1) - 0.5).argmin(), 4:14] for rows in found]
    np.testing.assert_allclose(np.median(points, axis=0).reshape(5, 2), TEMPLATE, atol=0.02)


def test_a_missing_teacher_is_refused(tmp_path):
    with pytest.raises(ModelError, match="pretrained"):
        REAL_TEACHER(tmp_path / face_scenes.TEACHER)


# --- scenes -----------------------------------------------------------------------------------------------------------


def test_turning_a_quarter_swaps_the_sides_of_a_box():
    face = np.array([10, 20, 30, 60, *([20, 40] * 5)], np.float32)
    turned = face_scenes._turned(face, np.array([[0.0, -1.0], [1.0, 0.0]]), np.array([100.0, 0.0]))
    np.testing.assert_allclose(turned[:4], [100 - 60, 10, 100 - 20, 30], atol=1e-4)
    np.testing.assert_allclose(turned[4:6], [60, 20], atol=1e-4)


def test_mirrored_twice_is_unchanged_and_left_stays_left():
    face = np.array([[*BOX, *POINTS]], np.float32) * 50
    mirrored = face_scenes._mirrored(face, 50)
    assert mirrored[0, 4] < mirrored[0, 6]
    np.testing.assert_allclose(face_scenes._mirrored(mirrored, 50), face, atol=1e-4)


def test_pasted_faces_lie_where_the_labels_say():
    """A face with one red eye: the red is where the label of that eye is, turned and mirrored or not."""
    pixels = np.full((64, 64, 3), 128, np.uint8)
    y, x = (round(64 * value) for value in (POINTS[1], POINTS[0]))
    pixels[y - 4 : y + 4, x - 4 : x + 4] = (255, 0, 0)
    images = data.Images(("faces128/a.png",), pixels.ravel(), np.array([pixels.shape]))
    ground = data.Images(("scenes96/b.png",), np.full(3 * 99 * 99, 60, np.uint8), np.array([[99, 99, 3]]))
    labels = {
        "faces128/a.png": np.array([[*BOX, *POINTS, 0.9, 1.0]], np.float32),
        "scenes96/b.png": np.zeros((0, face_scenes.COLUMNS), np.float32),
    }
    scenes = face_scenes.Scenes({"scenes96": ground}, {"scenes96": 1.0}, images, labels)
    seen = 0
    for seed in range(20):
        scene = scenes.draw(np.random.default_rng(seed), 128, (40.0, 60.0), most=1, calm=True)
        for face in scene.faces:
            red = scene.image[..., 0].astype(int) - scene.image[..., 1] > 90
            place = np.argwhere(red).mean(0)[::-1] + 0.5
            eyes = face[4:8].reshape(2, 2)
            assert np.hypot(*(eyes - place).T).min() < 2
            seen += 1
    assert seen > 5


def test_scenes_are_the_same_for_the_same_numbers(recipe):
    first, second = (recipe.batch(3, 0) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(recipe.batch(4, 0)[0], first[0])


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.6])
def test_as_much_is_covered_as_is_said(share):
    image = np.full((120, 100, 3), 77, np.uint8)
    boxes = np.array([[20, 30, 60, 90]], np.float32)
    found = []
    for seed in range(8):
        hidden, covered = face_scenes.cover(image, boxes, np.random.default_rng(seed), (share, share))
        assert covered[0] >= share
        found.append(covered[0])
        assert hidden.shape == image.shape
    assert np.mean(found) < share + 0.15
    assert np.array_equal(image, np.full((120, 100, 3), 77, np.uint8))


def test_damage_keeps_the_size_and_its_input():
    image = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    before = image.copy()
    for seed in range(30):
        assert face_scenes.damage(image, np.random.default_rng(seed)).shape == image.shape
    assert np.array_equal(image, before)


# --- targets and losses -----------------------------------------------------------------------------------------------


def face_of(size, centre=(40.0, 40.0)):
    low, high = np.subtract(centre, size / 2), np.add(centre, size / 2)
    return np.array([*low, *high, *np.tile(centre, 5)], np.float32)


def scene_of(faces_=(), unsure=()):
    def stack(rows):
        return np.stack(rows) if len(rows) else np.zeros((0, 14), np.float32)

    return face_scenes.Scene(np.zeros((80, 80, 3), np.uint8), stack(faces_), stack(unsure))


@pytest.mark.parametrize("size", [BAND[0], 30, BAND[1]])
def test_faces_of_the_band_have_cells_that_say_yes(size):
    asked, truth = faces.targets(scene_of([face_of(size)]), 80)
    assert asked[5, 5] == 1
    np.testing.assert_allclose(truth[:, 5, 5], face_of(size))
    assert asked[0, 0] == 0
    assert not truth[:, asked != 1].any()


def test_every_face_of_the_band_has_a_cell():
    rng = np.random.default_rng(0)
    for _ in range(50):
        asked, _ = faces.targets(scene_of([face_of(BAND[0], rng.uniform(10, 70, 2))]), 80)
        assert (asked == 1).sum() >= 1


def test_other_sizes_and_unsure_faces():
    small, between, huge = (faces.targets(scene_of([face_of(size)]), 80)[0] for size in (9, 65, 300))
    assert small[5, 5] == between[5, 5] == -1
    assert not huge.any()
    unsure = faces.targets(scene_of(unsure=[face_of(300)]), 80)[0]
    assert (unsure == -1).all()


def test_a_perfect_answer_costs_little():
    asked, truth = faces.targets(scene_of([face_of(30)]), 80)
    yes = torch.from_numpy(truth).permute(1, 2, 0)[torch.from_numpy(asked) == 1]
    assert torch.allclose(faces.generalised_iou(yes[:, :4], yes[:, :4]), torch.ones(len(yes)))
    logits = torch.where(torch.from_numpy(asked) == 1, 8.0, -8.0)
    assert faces.focal(logits, torch.from_numpy(asked)) < 1e-3
    assert faces.focal(-logits, torch.from_numpy(asked)) > 10


# --- the recipe -------------------------------------------------------------------------------------------------------


def test_training_makes_the_loss_smaller(recipe):
    batch = recipe.batch(0, 0)
    assert (batch[1] == 1).any()
    torch.manual_seed(0)
    net = FaceFinder((8, 8), 16, (0, 1))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)

    class OneBatch:
        networks = {"finder": net}  # noqa: RUF012

        def descend(self, name, loss):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    losses = [float(recipe.step(OneBatch(), batch, step)["loss"]) for step in range(40)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("rate", ["matrix_rate=0", "matrix_rate=0.01"])
def test_it_trains_and_goes_on(settings, tmp_path, rate):
    run = tmp_path / "run"
    make = [*settings, rate, "held_out_every=2", "sheet_every=2", "precision=bf16-mixed"]
    for steps, resume in ((1, False), (2, True)):
        config = make_config(faces.FaceFinderConfig, settings=[*make, f"steps={steps}"])
        train(faces.TrainFaceFinder(config), run, resume=resume, quiet=True)
    with (run / "log.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert last["step"] == "2"
    assert float(last["held_out/scenes"]) >= 0
    assert (run / "sheets").is_dir()
    again, network, step = recipes.load_run(run)
    assert step == 2
    assert "milliseconds" in again.table(again.evaluate(network))


def test_what_is_found_is_counted(recipe, monkeypatch):
    def perfect(image, network):
        """Say what `SameTeacher` says of scenes; on photographs there is nothing."""
        if image.shape[0] != faces.SCENE_SIDE:
            return []
        points = np.array(POINTS).reshape(5, 2) * image.shape[0]
        return [Face(tuple(value * image.shape[0] for value in BOX), tuple(map(tuple, points)), 0.9)]

    monkeypatch.setattr(faces, "find_faces", perfect)
    rows = recipe.evaluate(recipe.finder)["rows"]
    assert rows["scenes"][0] == rows["scenes_covered"][0] == 1
    assert rows["landmarks"][0] == pytest.approx(0, abs=1e-5)
    assert rows["extra"][0] == rows["landscapes"][0] == 0
    assert "photographs" not in rows  # no face, no share

    monkeypatch.setattr(faces, "find_faces", lambda image, network: [Face((0, 0, 9, 9), ((4, 4),) * 5, 0.9)])
    rows = recipe.evaluate(recipe.finder)["rows"]
    assert rows["scenes"][0] == 0
    assert rows["extra"][0] == rows["landscapes"][0] == rows["landscapes_enlarged"][0] == 1


def test_sheets_show_what_there_is(recipe):
    sheet = recipe.sheet(recipe.finder)
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3


def test_sets_are_wanted(data_folder):
    config = make_config(faces.FaceFinderConfig, settings=[*SMALL, f"data={data_folder}"])
    with pytest.raises(InputError, match="no sets"):
        faces.TrainFaceFinder(config).batch(0, 0)


def test_the_usual_settings_are_read():
    toml = data.Path(faces.__file__).with_name("face-finder.toml")
    config = make_config(faces.FaceFinderConfig, toml)
    assert set(config.sets) < set(face_scenes.LOOKS)
    recipe = faces.TrainFaceFinder(config)
    assert sum(p.numel() for p in recipe.finder.parameters()) <= 300_000
