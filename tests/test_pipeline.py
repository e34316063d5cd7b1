"""Several applications in a row: the same as one after the other, checked before the first begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import stylers
from PIL import Image, ImageCms
from restorers import ship
from safetensors.numpy import load_file
from upscalers import save

import velatura
from velatura import InputError, ModelError, Pipeline, Upscale, catalog
from velatura.errors import Cancelled
from velatura.image import Picture
from velatura.pipeline import Step, _sheet, _stages, applications
from velatura.task import SaveOptions

PLAIN = "upscale:scale=2,model=bicubic"


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (12, 17, 3), np.uint8)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("weights"), "srresnet-2")


# --- what a step says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("upscale", {}),
        ("upscale:scale=2", {"scale": "2"}),
        ("inpaint:mask-color=ff00ff,box=1,2,3,4", {"mask_color": "ff00ff", "box": "1,2,3,4"}),
        ("upscale:model=a=b.onnx", {"model": "a=b.onnx"}),
        ("upscale:model=C:\\x,y.onnx", {"model": "C:\\x,y.onnx"}),
    ],
)
def test_steps_are_read(text: str, options: dict[str, str]):
    assert Step.parse(text).options == options


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["colorize:style=a.jpg"], "step 1: there is no application 'colorize' here; there are blend, inpaint, "),
        ([PLAIN, "upscale:scale=9"], "step 2 (upscale): option 'scale': got '9'"),
        (["upscale:scal=2"], "step 1 (upscale): unknown option 'scal'; did you mean 'scale'?"),
        (["upscale:2"], "'upscale:2'; expected NAME or NAME:option=value"),
        (["upscale:scale=2,scale=3"], "scale is given twice"),
        (["upscale:evidence=map.png"], "step 1 (upscale): evidence is a picture beside the result"),
        (["inpaint:box=1,1,2,2,candidates=2"], "step 1 (inpaint): one result only goes on to the next step"),
        (["blend:at=1,2"], "step 1 (blend): needs source"),
        (["blend:source=absent.png"], "step 1 (blend): absent.png: no such file"),
    ],
)
def test_wrong_steps_are_told_at_once(steps: list[str], message: str):
    with pytest.raises(InputError) as caught:
        Pipeline(steps)
    assert message in str(caught.value)


def test_steps_are_needed(photo: np.ndarray):
    with pytest.raises(InputError, match="a pipeline needs steps"):
        Pipeline()(photo)


def test_a_pipeline_has_no_model():
    with pytest.raises(InputError, match="in a step, as in upscale:model=bicubic"):
        Pipeline.from_pretrained("srresnet")


def test_models_of_steps_are_checked_before_the_first(photo: np.ndarray):
    calls = []
    pipeline = Pipeline([PLAIN, "upscale:model=nope"])
    with pytest.raises(ModelError, match=r"step 2 \(upscale\): unknown model 'nope'"):
        pipeline(photo, progress=lambda *call: calls.append(call))
    assert not calls


def test_files_of_steps_are_checked(tmp_path: Path):
    (tmp_path / "source.png").write_text("hello")
    with pytest.raises(InputError, match=r"step 1 \(blend\): .*source.png"):
        Pipeline([f"blend:source={tmp_path / 'source.png'}"])


def test_inputs_that_take_words_and_options_given_several_times(tmp_path: Path):
    Pipeline(["restore:scratches=off,fading=off"])
    with pytest.raises(InputError, match=r"step 1 \(restore\): often: no such file"):
        Pipeline(["restore:scratches=often"])
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.safetensors").touch()  # a saved style
    second = tmp_path / "b.png"
    second.write_bytes((tmp_path / "a.png").read_bytes())
    pipeline = Pipeline([f"stylize:style={tmp_path / 'b.safetensors'},also={tmp_path / 'a.png'},{second}"])
    assert _stages(pipeline.steps)[0].params.also == (str(tmp_path / "a.png"), str(second))  # pyright: ignore[reportAttributeAccessIssue]


def test_applications_are_those_that_change_an_image():
    assert {"blend", "inpaint", "restore", "stylize", "upscale"} <= set(applications())
    assert applications()["upscale"] is Upscale


# --- what it makes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_two_steps_are_two_commands(tmp_path: Path, network: Path, dtype: type, channels: int):
    image = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (9, 13, channels)).astype(dtype)
    step = Upscale(network)
    steps = [Step("upscale", {"model": network, "scale": 2}), Step("upscale", {"model": network, "scale": 1.5})]
    velatura.upscale(image, model="bicubic", scale=1).save(tmp_path / "photo.png")
    step.to_file(tmp_path / "photo.png", out=tmp_path / "one.png", scale=2)
    step.to_file(tmp_path / "one.png", out=tmp_path / "two.png", scale=1.5)
    pipeline = Pipeline(steps)
    pipeline.to_file(tmp_path / "photo.png", out=tmp_path / "pipeline.png")
    assert (tmp_path / "pipeline.png").read_bytes() != (tmp_path / "one.png").read_bytes()
    two, ours = (
        np.asarray(velatura.upscale(tmp_path / name, model="bicubic", scale=1).image)
        for name in ("two.png", "pipeline.png")
    )
    assert two.dtype == ours.dtype == dtype
    assert np.array_equal(two, ours)
    assert np.array_equal(np.squeeze(pipeline(image).image), ours)


def test_other_images_come_by_name(photo: np.ndarray, tmp_path: Path):
    source = np.full((4, 5, 4), 255, np.uint8)
    expected = velatura.blend(source, photo, at=(3, 2), method="paste").image
    Image.fromarray(source).save(tmp_path / "source.png")
    by_file = Pipeline([f"blend:source={tmp_path / 'source.png'},at=3,2,method=paste", PLAIN])
    by_array = Pipeline([Step("blend", {"source": source, "at": (3, 2), "method": "paste"}), PLAIN])
    for pipeline in (by_file, by_array):
        assert np.array_equal(pipeline(photo).image, velatura.upscale(expected, model="bicubic", scale=2).image)


def test_restoring_then_enlarging(photo: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ship(tmp_path, monkeypatch)
    restored = velatura.restore(photo, "off", fading=False).image
    made = Pipeline(["restore:scratches=off,fading=off", PLAIN])(photo)
    assert np.array_equal(made.image, velatura.upscale(restored, model="bicubic", scale=2).image)
    assert made.made_by == "direct"
    catalog._read_catalog.cache_clear()


def test_the_file_stays_what_it_is(tmp_path: Path, network: Path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "a mill"
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 255, (8, 9, 4), np.uint8), "RGBA")
    picture.save(tmp_path / "a mill.png", icc_profile=profile, exif=exif)
    pipeline = Pipeline([PLAIN, f"upscale:scale=2,model={network}"])
    made = Image.open(pipeline.to_file(tmp_path / "a mill.png", out=tmp_path / "large mill.png"))
    assert (made.size, made.mode, made.info["icc_profile"]) == ((36, 32), "RGBA", profile)
    assert made.getexif()[0x010E] == "a mill"
    assert "Velatura: srresnet-2" in made.info["XML:com.adobe.xmp"]
    assert pipeline(tmp_path / "a mill.png").made_by == "srresnet-2"


def test_every_model_is_named(photo: np.ndarray, network: Path):
    step = f"upscale:scale=2,model={network}"
    assert Pipeline([step, PLAIN, step])(photo).made_by == "srresnet-2, then srresnet-2"


def test_given_images_stay_as_they_are(photo: np.ndarray):
    before = photo.copy()
    Pipeline([PLAIN, PLAIN])(photo, compare=True)
    assert np.array_equal(photo, before)


def test_progress_goes_over_all_steps(photo: np.ndarray):
    calls: list[tuple[int, int, str]] = []
    Pipeline([PLAIN, "inpaint:box=2,2,3,3,model=texture", PLAIN])(photo, progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert (done[0], done[-1], {call[1] for call in calls}) == (0, 3000, {3000})
    assert calls[0][2] == "step 1 of 3, upscaling"


def test_cancelled_as_any_task(photo: np.ndarray):
    def stop(done: int, total: int, stage: str) -> None:
        if stage.startswith("step 2"):
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match=r"^enough$"):
        Pipeline([PLAIN, PLAIN])(photo, progress=stop)


def test_a_step_that_refuses_the_image_is_named(photo: np.ndarray):
    with pytest.raises(InputError, match=r"step 2 \(upscale\): size 5x5 is out of reach for 34x24"):
        Pipeline([PLAIN, "upscale:size=5x5,model=bicubic"])(photo)


# --- before the work --------------------------------------------------------------------------------------------------


def test_what_is_too_large_to_be_held_is_refused(photo: np.ndarray):
    pipeline, calls = Pipeline([PLAIN, PLAIN]), []
    pipeline.max_megapixels = 0.001
    assert pipeline(photo).image.shape == (48, 68, 3)  # the first makes 816 pixels; the last is written as it comes
    pipeline.max_megapixels = 0.0008
    with pytest.raises(InputError, match=r"step 1 \(upscale\): makes 34 x 24.* held for the next step; the limit"):
        pipeline(photo, progress=lambda *call: calls.append(call))
    pipeline.max_megapixels = 0.001
    with pytest.raises(InputError, match=r"step 2 \(upscale\): makes 68 x 48.* held for the sheet"):
        pipeline(photo, compare=True)
    assert not calls


def test_results_that_no_format_holds_are_refused_before_the_work(tmp_path: Path):
    Image.new("RGB", (5000, 4)).save(tmp_path / "wide.png")
    calls = []
    pipeline = Pipeline(["upscale:scale=4,model=bicubic", "upscale:scale=4,model=bicubic"])
    for maps, out in (({}, "out.jpg"), ({"compare": tmp_path / "sheet.webp"}, "out.png")):
        with pytest.raises(InputError, match=r"out.jpg|sheet.webp"):
            pipeline.to_file(
                tmp_path / "wide.png", out=tmp_path / out, maps=maps, progress=lambda *call: calls.append(call)
            )
    assert not calls
    assert [path.name for path in tmp_path.iterdir()] == ["wide.png"]


def test_files_of_steps_are_never_replaced(photo: np.ndarray, tmp_path: Path):
    Image.fromarray(photo[:4, :4]).save(tmp_path / "source.png")
    before = (tmp_path / "source.png").read_bytes()
    pipeline = Pipeline([f"blend:source={tmp_path / 'source.png'},method=paste"])
    with pytest.raises(InputError, match="is an input of this work"):
        pipeline.to_file(photo, out=tmp_path / "source.png", save=SaveOptions(overwrite=True))
    assert (tmp_path / "source.png").read_bytes() == before


@pytest.fixture
def styler(tmp_path: Path) -> Path:
    return stylers.save(tmp_path)


def test_what_a_later_step_refuses_is_told_before_the_first(photo: np.ndarray, tmp_path: Path, styler: Path):
    large, other, out = tmp_path / "large.png", tmp_path / "b.png", tmp_path / "out.png"
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(large)
    Image.fromarray(photo).save(other)
    saved = tmp_path / "saved.safetensors"
    saved.write_bytes(b"kept")
    step = f"stylize:model={styler},style={other}"
    cases = [
        (f"{step},also={other},weights=1,2,3", "got 3 weights for 2 styles"),
        (f"{step},mask={other}", r"mask is 17x12; expected the photograph's 34x24"),
        (f"{step},features={tmp_path / 'none.safetensors'},method=optimize", "none.safetensors"),
        (f"stylize:model={styler},style={large}", "large.png.*megapixels"),
        (f"{step},style_out={saved}", "saved.safetensors exists"),
        (f"{step},style_out={out}.safetensors,mask={large}", "mask|megapixels"),
    ]
    calls: list[tuple[int, int, str]] = []
    for last, message in cases:
        with pytest.raises((InputError, ModelError), match=message):
            Pipeline([PLAIN, last]).to_file(
                other, out=out, max_megapixels=0.001, progress=lambda *call: calls.append(call)
            )
    assert not calls
    assert saved.read_bytes() == b"kept"


def test_a_mask_for_a_later_step_is_of_its_size(photo: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ship(tmp_path, monkeypatch)
    calls: list[tuple[int, int, str]] = []
    step = Step("restore", {"scratches": np.zeros(photo.shape[:2], np.uint8)})
    with pytest.raises(InputError, match="mask of scratches is 17x12, photograph 34x24"):
        Pipeline([PLAIN, step])(photo, progress=lambda *call: calls.append(call))
    assert not calls
    catalog._read_catalog.cache_clear()


def test_the_limit_of_a_call_counts_between_steps(photo: np.ndarray, tmp_path: Path):
    pipeline = Pipeline([PLAIN, PLAIN])
    with pytest.raises(InputError, match=r"the limit is 0\.0008"):
        pipeline.to_file(photo, out=tmp_path / "out.png", max_megapixels=0.0008)
    pipeline.max_megapixels = 0.0008
    pipeline.to_file(photo, out=tmp_path / "out.png", max_megapixels=0.001)


def test_files_that_a_step_writes_come_after_the_result(photo: np.ndarray, tmp_path: Path, styler: Path):
    vector = tmp_path / "style.safetensors"
    step = Step("stylize", {"model": styler, "style": 255 - photo, "style_out": str(vector)})
    Pipeline([step, PLAIN]).to_file(photo, out=tmp_path / "out.png")
    expected = velatura.Stylize(styler).style_vector(255 - photo)
    assert np.array_equal(load_file(vector)["style"], expected)
    with pytest.raises(InputError, match=r"style\.safetensors exists"):
        Pipeline([step, PLAIN])(photo)


def test_progress_of_the_last_step_waits_for_its_rows(
    photo: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ship(tmp_path, monkeypatch)
    calls: list[int] = []
    tall = np.tile(photo, (30, 1, 1))
    pipeline = Pipeline(["restore:faces=off,fading=off"])
    result = pipeline(tall, progress=lambda done, total, stage: calls.append(done))
    catalog._read_catalog.cache_clear()
    assert result.image.shape == tall.shape
    assert calls == sorted(calls)
    assert calls[-1] == 1000
    # Looking for damage is one half of it, the rows are the other: it goes on while they are made.
    assert 500 in calls
    assert len({done for done in calls if 500 < done < 1000}) > 1


# --- before and after -------------------------------------------------------------------------------------------------


def test_sheet_holds_both(photo: np.ndarray):
    result = Pipeline([PLAIN, PLAIN])(photo, compare=True)
    sheet, (height, width) = result.maps["compare"].pixels, result.image.shape[:2]
    before = velatura.upscale(photo, model="bicubic", scale=4).image
    bottom = sheet.shape[0] - 6
    left, right = sheet[bottom - height : bottom, 6 : 6 + width], sheet[bottom - height : bottom, -6 - width : -6]
    assert np.array_equal(right, result.image)
    assert np.abs(left.astype(int) - before).max() <= 1
    assert sheet[: bottom - height].min() < 128  # the labels
    assert (sheet[bottom:] == 255).all()


@pytest.mark.parametrize("steps", [["upscale:scale=1,model=bicubic"], [PLAIN]])
def test_sheet_of_16_bits_and_transparency(steps: list[str]):
    image = np.random.default_rng(3).integers(0, 65535, (30, 40, 2)).astype(np.uint16)
    image[:10, :, 1] = 0
    sheet = Pipeline(steps)(image, compare=True).maps["compare"]
    assert (sheet.pixels.dtype, sheet.channels, sheet.alpha) == (np.uint16, 1, None)
    assert (sheet.pixels[25:28] == 65535).all()  # nothing is seen there, on white


def test_sheet_shows_grey_beside_colour(photo: np.ndarray):
    # A step may give colour to what had none.
    sheet = _sheet(Picture(photo[..., :1]), Picture(photo), ("before", "after"), None).gather()
    assert sheet.channels == 3
    height, width = photo.shape[:2]
    assert np.array_equal(sheet.pixels[-6 - height : -6, 6 : 6 + width], photo[..., :1].repeat(3, 2))
