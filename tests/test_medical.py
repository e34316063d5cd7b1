"""Volumes: what is written, how slices are turned and scaled, what is refused."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="needs the extra medical")

import nibabel
from inpainters import save_vae
from volumes import RIGHT_FRONT_HEAD, brain, lesion, save

from velatura import Inpaint, InputError, MachineError, medical

pytestmark = pytest.mark.filterwarnings("ignore:.*never for a diagnosis")
QUICK = {"steps": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_vae(tmp_path_factory.mktemp("nets"), "vae-brain", "brain", 1)


@pytest.fixture(scope="module")
def task(model: Path) -> Inpaint:
    return Inpaint.from_pretrained(model)


def unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<u2", "<f4", ">f8"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nothing_but_the_hole_changes(dtype: str, suffix: str, model: Path, tmp_path: Path):
    source = tmp_path / f"a{suffix}"
    header = nibabel.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<")
    header["descrip"] = b"of a kind"
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"told by nobody"))
    values = (brain() / 4).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(values, RIGHT_FRONT_HEAD, header, dtype=dtype), source)
    mask = save(tmp_path / "mask.nii", lesion(), dtype=np.uint8)
    out = tmp_path / f"out{suffix}"
    filled = medical.fill_file(source, mask, out, model=model, **QUICK)
    assert (filled.slices, filled.voxels) == (2, 2 * 8 * 8)

    before, after = unpacked(source), unpacked(out)
    start = len(before) - values.nbytes
    assert before[:start] == after[:start]
    old, new = (np.frombuffer(one[start:], dtype).reshape(values.shape, order="F") for one in (before, after))
    assert old[~lesion()].tobytes() == new[~lesion()].tobytes()
    assert (old != new)[lesion()].mean() > 0.9
    read = nibabel.load(out)
    assert read.get_data_dtype() == np.dtype(dtype)
    assert read.header["descrip"].tobytes().startswith(b"of a kind")
    np.testing.assert_array_equal(read.affine, RIGHT_FRONT_HEAD)
    again = tmp_path / f"again{suffix}"
    medical.fill_file(source, mask, again, model=model, **QUICK)
    assert again.read_bytes() == out.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"a{suffix}", "mask.nii", out.name, again.name])


def test_scaled_integers_and_nifti_2(model: Path, tmp_path: Path):
    """A slope and an intercept are kept, and what is filled is written by them."""
    image = nibabel.Nifti2Image(brain(), RIGHT_FRONT_HEAD)
    image.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.25, -40)
    scaled = tmp_path / "scaled.nii"
    nibabel.save(image, scaled)
    volume = medical.read_volume(scaled)
    assert (volume.slope, volume.intercept) == (0.25, -40)
    np.testing.assert_allclose(volume.values, nibabel.load(scaled).get_fdata(), atol=1e-3)
    mask = save(tmp_path / "mask.nii.gz", lesion(), dtype=np.uint8)
    medical.fill_file(scaled, mask, tmp_path / "out.nii", model=model, **QUICK)
    plain = save(tmp_path / "plain.nii", brain() * 0.25 - 40, dtype=np.float32)
    medical.fill_file(plain, mask, tmp_path / "plain-out.nii", model=model, **QUICK)
    one, two = (nibabel.load(tmp_path / name).get_fdata() for name in ("out.nii", "plain-out.nii"))
    np.testing.assert_allclose(one, two, atol=0.13)


def test_a_single_volume_of_four_axes_and_nan(model: Path, tmp_path: Path):
    values = np.where(brain() > 0, brain(), np.nan)[..., None]
    save(tmp_path / "a.nii", values, dtype=np.float32)
    mask = save(tmp_path / "mask.nii", lesion(), dtype=np.uint8)
    medical.fill_file(tmp_path / "a.nii", mask, tmp_path / "out.nii", model=model, **QUICK)
    found = nibabel.load(tmp_path / "out.nii").get_fdata()[..., 0]
    assert np.isfinite(found[lesion()]).all()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values[..., 0]))


# --- slices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", ["LPS", "RAS", "ASR", "PIR", "SLA"])
def test_the_way_voxels_are_ordered_does_not_matter(codes: str, task: Inpaint, tmp_path: Path):
    """The same brain, stored in another order, is filled alike."""
    expected = medical.fill_volume(task, _volume(tmp_path, brain()), lesion(), **QUICK).volume.values
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    image = nibabel.Nifti1Image(brain().astype(np.int16), RIGHT_FRONT_HEAD, dtype=np.int16).as_reoriented(turn)
    nibabel.save(image, tmp_path / "turned.nii")
    volume = medical.read_volume(tmp_path / "turned.nii")
    mask = nibabel.orientations.apply_orientation(lesion(), turn)
    found = medical.fill_volume(task, volume, mask, **QUICK).volume.values
    np.testing.assert_array_equal(found, nibabel.orientations.apply_orientation(expected, turn))


def test_slices_stand_upright(tmp_path: Path):
    """Front at the top, right at the right end of the columns; along another axis the head is at the top."""
    values = np.zeros((8, 9, 7), np.float32)
    values[6, 7, 5] = 1  # right, in front, high
    volume = _volume(tmp_path, values, dtype=np.float32)
    assert np.argwhere(medical._Turn.of(volume.affine, None).upright(volume.values)).tolist() == [[5, 1, 6]]
    assert np.argwhere(medical._Turn.of(volume.affine, 1).upright(volume.values)).tolist() == [[7, 1, 6]]
    assert np.argwhere(medical._Turn.of(volume.affine, 0).upright(volume.values)).tolist() == [[6, 1, 7]]


def test_what_the_model_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Inpaint):
    """A square with the brain over .82 of it, its brightest half per cent above .945, black around."""
    seen = []

    def watch(image, mask, **params):
        seen.append((image.copy(), mask.copy()))
        return Inpaint.__call__(task, image, mask, **params)

    values = brain() + 100
    values[30, 20, 2] = 1e5  # one voxel that is far too bright
    medical.fill_volume(watch, _volume(tmp_path, values, dtype=np.float32), lesion(), **QUICK)
    assert len(seen) == 2
    image, mask = seen[0]
    rows, cols = (np.flatnonzero((image > 0.03).any(axis)) for axis in (1, 0))
    assert image.shape[0] == image.shape[1]
    assert (rows[-1] - rows[0] + 1) / len(image) == pytest.approx(0.82, abs=0.03)
    assert rows[0] + rows[-1] + 1 == pytest.approx(len(image), abs=1)
    assert cols[0] + cols[-1] + 1 == pytest.approx(len(image), abs=1)
    brightness = [float(np.median(part[part > 0.03])) for part in (image[: len(image) // 2], image[len(image) // 2 :])]
    assert brightness == pytest.approx([0.945 / 2, 0.945], abs=0.01)  # the front is darker
    assert image[0].max() == 0
    assert mask.sum() == 64 * 255


def test_intensities_may_have_any_unit(task: Inpaint, tmp_path: Path):
    one = medical.fill_volume(task, _volume(tmp_path, brain(), dtype=np.float32), lesion(), **QUICK).volume.values
    other = _volume(tmp_path, 0.001 * brain() - 5, dtype=np.float32)
    found = medical.fill_volume(task, other, lesion(), **QUICK).volume.values
    np.testing.assert_allclose((found + 5) * 1000, one, atol=1)


def test_by_texture(tmp_path: Path):
    task = Inpaint.from_pretrained("texture")
    found = medical.fill_volume(task, _volume(tmp_path, brain()), lesion()).volume.values
    np.testing.assert_allclose(found, brain(), atol=15)


def test_along_another_axis(task: Inpaint, tmp_path: Path):
    volume = _volume(tmp_path, brain((30, 30, 30)), affine=np.eye(4))
    mask = np.zeros(volume.shape, bool)
    mask[12:15, 10:14, 14:16] = True
    found = [medical.fill_volume(task, volume, mask, axis=axis, **QUICK) for axis in (None, 2, 1, 0)]
    assert [one.slices for one in found] == [2, 2, 4, 3]
    assert np.array_equal(found[0].volume.stored, found[1].volume.stored)
    assert not np.array_equal(found[0].volume.stored, found[2].volume.stored)


def test_it_can_be_stopped(task: Inpaint, tmp_path: Path):
    def stop(done, total, stage):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        medical.fill_volume(task, _volume(tmp_path, brain()), lesion(), progress=stop, **QUICK)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_files_that_are_refused(tmp_path: Path):
    def refused(path: Path, match: str, **more):
        with pytest.raises(InputError, match=match) as caught:
            medical.read_volume(path, **more)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "absent.nii", "no such file")
    refused(tmp_path / "a.png", "expected a volume, .nii or .nii.gz")
    (tmp_path / "text.nii").write_text("not a volume at all" * 40)
    refused(tmp_path / "text.nii", "is not NIfTI")
    refused(save(tmp_path / "time.nii", np.zeros((4, 4, 4, 3))), "expected one volume of three axes")
    refused(save(tmp_path / "flat.nii", np.zeros((4, 4))), "expected one volume of three axes")
    refused(save(tmp_path / "complex.nii", np.zeros((4, 4, 4)), dtype=np.complex64), "expected whole or real numbers")
    large = save(tmp_path / "large.nii", np.zeros((20, 20, 20)))
    refused(large, "0 million voxels are more than 0.001", max_megavoxels=0.001)
    large.write_bytes(large.read_bytes()[:-1000])
    refused(large, "ends after")
    packed = save(tmp_path / "packed.nii.gz", np.random.default_rng(0).integers(0, 99, (20, 20, 20)))
    packed.write_bytes(packed.read_bytes()[:-400])
    refused(packed, "is damaged")


def test_work_that_is_refused(model: Path, task: Inpaint, tmp_path: Path):
    source = save(tmp_path / "a.nii", brain())
    mask = save(tmp_path / "mask.nii", lesion(), dtype=np.uint8)

    def refused(match: str, mask: Path = mask, out: str = "out.nii", source: Path = source, **more):
        with pytest.raises(InputError, match=match) as caught:
            medical.fill_file(source, mask, tmp_path / out, model=model, **more)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out.nii").exists()

    refused("has the shape", save(tmp_path / "other.nii", lesion()[:-1], dtype=np.uint8))
    elsewhere = RIGHT_FRONT_HEAD + np.eye(4)[[0]].T * [0, 0, 0, 5]
    refused("lies elsewhere", save(tmp_path / "moved.nii", lesion(), elsewhere, np.uint8))
    refused("nothing to fill", save(tmp_path / "none.nii", lesion() & False, dtype=np.uint8))
    refused("nothing is to be seen", save(tmp_path / "all.nii", lesion() | True, dtype=np.uint8))
    refused("nothing is to be seen", source=save(tmp_path / "black.nii", 0 * brain()))
    refused("expected the name of a volume", out="out.png")
    refused("does not exist", out="no/out.nii")
    refused("exists", out="mask.nii")
    refused("never written onto", out="mask.nii", overwrite=True)
    refused("expected 0, 1 or 2", axis=3)
    refused("2 x 3 mm; resample it", axis=0)


def test_without_nibabel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MachineError, match=r"pip install 'velatura\[medical\]'"):
        medical.read_volume(tmp_path / "a.nii")


def _volume(folder: Path, values: np.ndarray, **more) -> medical.Volume:
    return medical.read_volume(save(folder / "volume.nii", values, **more))
