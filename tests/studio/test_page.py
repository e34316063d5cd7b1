"""The page as its user has it: the system's Chromium, a real server, real small models.

`make test-page` brings playwright and fails without Chromium; elsewhere these tests are skipped if either is missing.
VELATURA_SHOTS names a folder for screenshots.
"""

import io
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from velatura import catalog

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: `make test-page` installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [pytest.mark.page, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

PATIENCE = 240  # seconds for a job on a slow machine
SHIPPED = {card.name for card in catalog.cards()}


def as_png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"mimeType": "image/png", "buffer": stream.getvalue()}


def patch(pixels, x, y):
    """Give 16 x 16 pixels about a point, counted from the middle of the stage."""
    top, left = pixels.shape[0] // 2 + y - 8, pixels.shape[1] // 2 + x - 8
    return pixels[top : top + 16, left : left + 16]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as found:
        launched = found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


class Page:
    """The page with what tests do on it again and again."""

    def __init__(self, page, address):
        self.page, self.errors = page, []
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        self.ready()

    def ready(self):
        self.page.wait_for_selector("html[data-ready]")

    def sample(self, title):
        self.page.click("#samples")
        self.page.click(f".choices >> text={title}")
        self.until(lambda: re.search(r"\d+ x \d+", self.message))
        self.page.wait_for_selector("#toolbar button")
        self.settle()

    @property
    def message(self):
        return self.page.inner_text("#message")

    def until(self, test, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := test():
                return found
            self.page.wait_for_timeout(200)
        raise AssertionError(f"waited in vain; the page says {self.message!r}")

    def settle(self):
        self.page.wait_for_timeout(700)

    def run(self):
        """Run and wait; give what the page says then."""
        self.page.evaluate("document.querySelector('#message').textContent = ''")
        self.page.click("#run")
        failed = "document.querySelector('#message').classList.contains('error')"
        self.until(lambda: self.message.startswith("done") or self.page.evaluate(failed))
        self.settle()
        return self.message

    def middle(self, x=0, y=0):
        box = self.page.locator("#stage").bounding_box()
        return box["x"] + box["width"] / 2 + x, box["y"] + box["height"] / 2 + y

    def stroke(self, *points):
        """Drag the pointer, from the middle of the stage on."""
        mouse = self.page.mouse
        mouse.move(*self.middle(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.middle(*point), steps=4)
        mouse.up()
        self.page.wait_for_timeout(150)

    def pixels(self):
        """Give what the stage shows."""
        return np.asarray(Image.open(io.BytesIO(self.page.locator("#stage").screenshot())).convert("RGB")).astype(int)

    def painted(self):
        """Give the sum of the mask that is painted on now: what is sent to the server."""
        look = (
            "import('/static/workspace.js').then(({ overlayNow }) => overlayNow().mask.data.reduce((a, b) => a + b, 0))"
        )
        return self.page.evaluate(look)

    def shot(self, name):
        if folder := os.environ.get("VELATURA_SHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))


@pytest.fixture
def open_page(browser, address):
    opened = []

    def make(width=1440, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = Page(context.new_page(), address)
        opened.append((context, page))
        return page

    yield make
    for context, page in opened:
        context.close()
        assert page.errors == []


def test_paint_a_mask_and_inpaint(open_page):
    page = open_page()
    page.sample("a portrait")
    before = page.pixels()
    page.page.select_option("#panel select", "texture")
    assert page.painted() == 0
    page.stroke((60, 80), (110, 110))
    assert page.painted() > 50_000
    assert np.abs(patch(page.pixels(), 85, 95) - patch(before, 85, 95)).mean() > 20
    page.shot("paint")
    assert page.run().startswith("done")
    page.page.click("#toolbar >> text=Result")
    page.settle()
    assert "--mask astronaut-mask.png --model texture" in page.page.inner_text("#details code")
    page.shot("inpainted")
    # What was not painted is what it was, but for the size that it is shown at.
    page.page.click("#toolbar >> text=Difference")
    page.settle()
    changed = page.pixels()
    height, width = changed.shape[:2]
    assert changed[height // 2 + 40 : height // 2 + 110, width // 2 + 30 : width // 2 + 120].max() > 60
    assert changed[: height // 3].max() - changed[: height // 3].min() < 240
    assert before.shape[1] == width


def test_ten_strokes_are_undone_and_come_back(open_page):
    page = open_page()
    page.sample("a cup of coffee")
    sums = [page.painted()]
    for i in range(10):
        page.stroke((-200 + 40 * i, -100), (-200 + 40 * i, 100))
        sums.append(page.painted())
    assert sums == sorted(set(sums))
    for i in range(9, -1, -1):
        page.page.keyboard.press("Control+z")
        assert page.painted() == sums[i]
    for _ in range(10):
        page.page.keyboard.press("Control+Shift+z")
    assert page.painted() == sums[10]
    page.page.keyboard.press("i")
    page.page.keyboard.press("Control+z")
    assert page.painted() == sums[10]


def test_inpainting_nothing_is_told_before_it_is_queued(open_page):
    page = open_page()
    page.sample("a cup of coffee")
    assert page.run() == "paint over what is to be filled first"


def test_undo_waits_for_the_end_of_a_stroke(open_page):
    page = open_page()
    page.sample("a cup of coffee")
    mouse, keys = page.page.mouse, page.page.keyboard
    mouse.move(*page.middle(-100, 0))
    mouse.down()
    mouse.move(*page.middle(0, 0), steps=4)
    keys.press("Control+z")
    mouse.move(*page.middle(100, 0), steps=4)
    mouse.up()
    assert page.painted() > 0
    keys.press("Control+z")
    assert page.painted() == 0


def test_a_mask_is_saved_at_the_size_of_its_picture(open_page):
    page = open_page()
    large = {"name": "large.png", **as_png(np.full((1500, 3000, 3), 90, np.uint8))}
    page.page.set_input_files("#files", [large])
    page.page.wait_for_selector("#toolbar button")  # it comes once the browser has decoded the picture
    page.stroke((-100, 0), (100, 0))
    with page.page.expect_download() as download:
        page.page.click("#toolbar >> text=Save")
    assert download.value.suggested_filename == "large-mask.png"
    with Image.open(download.value.path()) as mask:
        assert mask.size == (3000, 1500)
        assert np.asarray(mask).max() == 255


def test_a_reload_keeps_what_was_not_run(open_page):
    page = open_page()
    page.sample("a cup of coffee")
    page.stroke((-100, 0), (100, 0))
    painted = page.painted()
    page.until(
        lambda: page.page.evaluate("Object.keys(sessionStorage).some((key) => key.startsWith('velatura-mask-'))")
    )
    page.page.reload()
    page.ready()
    page.page.wait_for_selector("#toolbar >> text=Invert")
    page.settle()
    assert page.painted() == painted
    page.sample("a cat in the coffee")
    page.stroke((0, 20), (70, -10))
    where = "import('/static/place.js').then(({ placed }) => [placed.x, placed.y, placed.scale].map(Math.round).join())"
    placed = page.page.evaluate(where)
    page.settle()
    page.page.reload()
    page.ready()
    page.settle()
    assert page.page.evaluate(where) == placed


def test_the_keyboard_stays_where_it_is(open_page):
    page = open_page()
    focused = "document.activeElement.id || document.activeElement.textContent"
    page.page.focus("nav >> text=Upscale")
    page.page.keyboard.press("Enter")
    assert page.page.evaluate(focused) == "Upscale"
    page.sample("a small face")
    page.page.select_option("#panel select", "bicubic")
    page.page.focus("#run")
    page.page.evaluate("document.querySelector('#message').textContent = ''")
    page.page.keyboard.press("Enter")
    page.until(lambda: page.message.startswith("done"))
    page.settle()
    assert page.page.evaluate(focused) == "run"
    page.page.focus("#history button >> nth=0")
    page.page.keyboard.press("Enter")
    page.settle()
    assert page.page.evaluate("document.activeElement.classList.contains('result')")
    page.page.focus("nav >> text=Imagine")
    page.page.keyboard.press("Enter")
    page.page.type("#text", "red")
    page.page.keyboard.press("ArrowLeft")
    page.page.evaluate("import('/static/session.js').then(({ changed }) => changed())")
    page.page.keyboard.type("x")
    assert page.page.input_value("#text") == "rexd"


def test_keys_alone_paint_and_run(open_page):
    page = open_page()
    page.sample("a cup of coffee")
    page.page.focus("#stage")
    keys = page.page.keyboard
    keys.press("Enter")
    for _ in range(6):
        keys.press("ArrowRight")
    keys.press("Enter")
    assert page.painted() > 50_000
    page.page.select_option("#panel select", "texture")
    page.page.focus("#stage")
    keys.press("Control+Enter")
    page.until(lambda: page.message.startswith("done"))
    keys.press("?")
    assert page.page.inner_text("dialog h2") == "Keys and tools"
    page.shot("help")


def test_drag_a_cutout_and_blend(open_page):
    page = open_page(color_scheme="dark")
    page.sample("a cat in the coffee")
    page.settle()
    before = page.pixels()
    page.stroke((0, 20), (70, -10))
    page.settle()
    assert np.abs(page.pixels() - before).max() > 50
    page.shot("blend-live")
    assert page.run().startswith("done")
    command = page.page.inner_text("#details code")
    at = re.search(r"--at (-?\d+),(-?\d+)", command)
    assert at is not None
    assert int(at[1]) > 86
    assert int(at[2]) < 132
    page.shot("blended")


def test_a_piece_is_cut_out_by_hand_and_turned(open_page):
    page = open_page()
    page.sample("a cat in the coffee")
    page.page.click("text=Cut out")
    page.settle()
    page.page.click("#toolbar >> text=Clear")
    page.page.click("#toolbar >> [title^=Box]")
    page.stroke((-80, -80), (80, 80))
    page.shot("cutout")
    page.page.click("#toolbar >> text=Place")
    page.settle()
    page.page.focus("#stage")
    for _ in range(12):
        page.page.keyboard.press(".")
    page.settle()
    page.page.select_option("#panel select", "poisson")
    assert page.run().startswith("done")
    assert "cat-source-cutout.png" in page.page.inner_text("#details code")


def test_upscale_with_the_slider(open_page):
    page = open_page()
    page.sample("a small face")
    page.page.check("text=Evidence")
    assert page.run().startswith("done")
    first = page.pixels()
    page.stroke((0, 0), (-200, 0))
    assert np.abs(page.pixels() - first).max() > 60
    page.shot("upscaled")
    page.page.focus("#stage")
    page.page.keyboard.press("ArrowRight")
    page.page.click("#toolbar >> text=Evidence")
    page.settle()
    page.shot("evidence")
    assert "--evidence face-evidence.png" in page.page.inner_text("#details code")


def test_stylize_step_by_step(open_page):
    page = open_page()
    page.sample("coffee, and stains")
    page.page.select_option("label:has-text('Method') select", "optimize")
    page.page.click("text=More options")
    page.page.fill("label:has-text('Steps') input", "2")
    page.page.fill("label.field:has(> .name:text-is('Size')) input", "64")
    assert page.run().startswith("done")


@pytest.mark.skipif("imagine-flowers" not in SHIPPED, reason="imagine-flowers is not trained yet")
def test_imagine_marks_unknown_words(open_page):
    page = open_page()
    page.page.click("nav >> text=Imagine")
    page.page.fill("#text", "a red flower xyzzy")
    page.page.click("#run")
    page.until(lambda: "draws" in page.message)
    assert page.page.inner_text("#unknown mark") == "xyzzy"


@pytest.mark.skipif({"direct", "scratch-detector"} - SHIPPED, reason="restoration is not trained yet")
def test_correct_a_scratch_mask_and_run_again(open_page):
    page = open_page()
    page.sample("a worn print")
    page.page.click("text=More options")
    page.page.check("text=Mask out")
    assert page.run().startswith("done")
    page.page.click("text=Correct this mask")
    page.settle()
    page.stroke((-100, 0), (100, 0))
    assert page.run().startswith("done")
    assert "--scratches worn-mask.png" in page.page.inner_text("#details code")


def test_a_missing_model_is_one_clear_line(open_page):
    missing = {"restore": "direct", "stylize": "style-fast", "imagine": "imagine-flowers"}
    page = open_page()
    for name, model in missing.items():
        page.page.click(f"nav >> text={name.capitalize()}")
        shown = page.page.locator("#panel .missing")
        assert shown.count() == (model not in SHIPPED)
        if model not in SHIPPED:
            assert shown.inner_text() == f"{name} has no model '{model}' in this version"


def slow_job(page):
    page.sample("a portrait")
    page.page.select_option("#panel select", "texture")
    page.page.fill("label:has-text('Candidates') input", "32")
    page.page.click("#toolbar >> [title^=Box]")
    page.stroke((-200, -200), (200, 200))
    page.page.click("#run")
    page.page.wait_for_selector("#cancel")


def test_a_job_is_cancelled(open_page):
    page = open_page()
    slow_job(page)
    page.settle()
    page.shot("running")
    page.page.click("#cancel")
    page.until(lambda: page.message == "cancelled", 30)
    assert page.page.is_hidden("#progress")


def test_a_slow_press_cancels(open_page):
    """The news that come while the button is down must not take it away."""
    page = open_page()
    slow_job(page)
    page.page.hover("#cancel")
    page.page.mouse.down()
    page.page.wait_for_timeout(1200)
    page.page.mouse.up()
    page.until(lambda: page.message == "cancelled", 30)


def test_a_reload_in_the_middle_loses_nothing(open_page):
    page = open_page()
    slow_job(page)
    page.page.reload()
    page.ready()
    page.page.wait_for_selector("#cancel")
    assert "astronaut.png, 512 x 512" in page.page.inner_text("#panel")
    assert page.page.input_value("label:has-text('Candidates') input") == "32"
    page.page.click("#cancel")
    page.until(lambda: page.message == "cancelled", 30)


def test_a_reload_before_the_answer_loses_nothing(open_page):
    page = open_page()
    page.page.route("**/api/jobs", lambda route: route.fetch() and None)  # it is asked for, and never answered
    slow_job(page)
    page.page.reload()
    page.ready()
    page.page.click("#cancel")
    page.until(lambda: page.message == "cancelled", 30)


def test_a_batch_with_one_bad_file(open_page):
    page = open_page()
    page.page.click("nav >> text=Batch")
    page.page.select_option("label:has-text('Model') select", "bicubic")
    files = [{"name": f"photo-{i}.png", **as_png(np.full((40, 50, 3), 60 * i, np.uint8))} for i in range(3)]
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no image"}
    page.page.set_input_files("#files", [*files, broken])
    page.page.click("#start-batch")
    page.until(lambda: page.message == "3 done, 1 failed")
    page.shot("batch")
    row = page.page.locator("tr.failed")
    assert row.count() == 1
    assert "broken.png is not an image we know" in row.inner_text()
    with page.page.expect_download() as download:
        page.page.click("#zip")
    assert download.value.suggested_filename == "velatura-upscale.zip"
    shown = page.page.locator("#history button")
    before = shown.count()
    page.page.click("text=Empty the list")
    page.until(lambda: shown.count() == before - 3)


def test_a_batch_takes_a_style(open_page):
    page = open_page()
    page.page.click("nav >> text=Batch")
    page.page.select_option("#batch-application", "stylize")
    style = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with page.page.expect_file_chooser() as chooser:
        page.page.click("[data-slot=style]")
    chooser.value.set_files([{"name": "style.png", **as_png(style)}])
    page.page.wait_for_selector("[data-slot=style] >> text=style.png")
    # The next files are for the table, not for that place.
    page.page.set_input_files("#files", [{"name": "a.png", **as_png(np.full((40, 50, 3), 90, np.uint8))}])
    page.page.click("#start-batch")
    page.until(lambda: page.message == "1 done, 0 failed")


def test_steps_of_a_pipeline_are_moved_by_keys(open_page):
    page = open_page()
    page.sample("a small face")
    page.page.click("nav >> text=Pipeline")
    for name in ("upscale", "inpaint"):
        page.page.select_option("select[aria-label^=Application]", name)
        page.page.click("#add-step")
    chips = page.page.locator(".chip button:first-child")
    assert chips.all_inner_texts() == ["1 upscale", "2 inpaint"]
    chips.nth(1).focus()
    page.page.keyboard.press("Alt+ArrowLeft")
    assert chips.all_inner_texts() == ["1 inpaint", "2 upscale"]
    page.page.select_option("label:has-text('Model') select", "texture")
    page.stroke((0, 0), (30, 10))
    page.shot("pipeline")
    chips.nth(1).click()
    page.page.select_option("label:has-text('Model') select", "bicubic")
    assert page.run().startswith("done")
    command = page.page.inner_text("#details code")
    assert command.startswith("velatura pipeline face.png --step inpaint:")
    assert "--step upscale:model=bicubic" in command


def test_a_draw_is_varied(open_page):
    page = open_page()
    page.page.click("nav >> text=Generate")
    page.page.fill("label:has-text('Count') input", "4")
    page.page.click("#run")
    page.until(lambda: page.message == "4 draws")
    page.page.click(".draws button >> nth=1")
    page.page.click("#vary")
    page.until(lambda: "--latents" in page.page.inner_text("#sheet code"))
    page.shot("generate")


def test_a_tablet_sees_everything_and_paints_by_touch(open_page):
    page = open_page(820, 1180, has_touch=True)
    page.sample("a portrait")
    page.shot("tablet")
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 820
    x, y = page.middle(0, 40)
    page.page.touchscreen.tap(x, y)
    assert page.painted() > 20_000
    page.page.set_viewport_size({"width": 390, "height": 844})
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
