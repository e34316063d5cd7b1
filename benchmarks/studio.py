"""The studio: first paint, painting on a large photograph, many clients, memory, the end, the preview of a blend.

    python benchmarks/studio.py                        everything, into benchmarks/results/studio.json
    python benchmarks/studio.py --only page,painting   some parts, printed only
    python benchmarks/studio.py --quick                small images, few rounds, to see that it runs; printed only

`page` and `painting` need playwright and Chromium, `preview` needs node; without them they are left out, and say so.

The studio runs as its command, in a process of its own, on 127.0.0.1. First paint is what Chromium itself reports, in a
fresh profile each time, without a graphics card; bytes are those of all answers, headers too. While painting, a pointer
draws strokes across the stage: its cost is the time inside the page's own handlers, a frame the time between two
callbacks of requestAnimationFrame. Memory is the resident set of the server and its worker; the worker is warm before.
Times are wall time and mean something on an idle machine only, but for the preview's, which is CPU time. The median of
the rounds counts.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import psutil
from _common import Figure, command_line, photograph

from velatura.image import save_image
from velatura.studio.app import STATIC

MODEL = "texture"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NODE = shutil.which("node")

CLIENTS = 32
PAUSE = 10  # seconds between cancelling and the second look at the memory
PATIENCE = 300.0  # seconds for an answer
SIDE = 360  # px of the preview's longer side, as in place.js


# --- a studio, and who uses it ----------------------------------------------------------------------------------------


@contextmanager
def studio() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a studio; give its process and its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "velatura", "studio", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        address = f"http://127.0.0.1:{port}"
        httpx.get(address, timeout=PATIENCE)  # the port is open before the server takes from it
        yield process, address
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium; None, and a line that says so, where something is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("  left out: needs playwright")
        yield None
        return
    if CHROMIUM is None:
        print("  left out: needs Chromium")
        yield None
        return
    with sync_playwright() as found:
        browser = found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def ready(context: Any, address: str) -> Any:
    """Open the page, wait until it can be used."""
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    return page


def as_png(pixels: np.ndarray) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "image.png")
        save_image(pixels, path)
        return path.read_bytes()


def hole(height: int, width: int) -> np.ndarray:
    """Give a mask that keeps a worker busy."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 6 : -height // 6, width // 8 : -width // 8] = 255
    return mask


def upload(client: httpx.Client, data: bytes, **query: str) -> str:
    answer = client.post("/api/images", files={"file": ("photo.png", data)}, params=query)
    answer.raise_for_status()
    return answer.json()["id"]


def submit(client: httpx.Client, model: str | None, image: str, mask: str) -> httpx.Response:
    asked = {"application": "inpaint", "inputs": {"image": image, "mask": mask}, "model": model or MODEL}
    return client.post("/api/jobs", json=asked)


def wait(client: httpx.Client, job: str, states: tuple[str, ...]) -> None:
    end = time.monotonic() + PATIENCE
    while client.get(f"/api/jobs/{job}").json()["state"] not in states:
        if time.monotonic() > end:
            raise TimeoutError(f"job {job} is not {' or '.join(states)} after {PATIENCE:.0f} s")
        time.sleep(0.05)


# --- the page ---------------------------------------------------------------------------------------------------------


def page(model: str | None, quick: bool) -> Iterator[Figure]:
    """First paint on loopback, and bytes of all that the page loads."""
    paints, uses, sizes = [], [], []
    with chromium() as browser:
        if browser is None:
            return
        with studio() as (_, address):
            for _ in range(2 if quick else 6):
                context = browser.new_context(viewport={"width": 1440, "height": 900})
                opened = ready(context, address)
                uses.append(opened.evaluate("performance.now()"))
                paints.append(opened.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
                sizes.append(
                    opened.evaluate(
                        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
                        ".reduce((sum, one) => sum + one.transferSize, 0)"
                    )
                )
                context.close()
    names = {"first paint": (paints, 1.0), "until it can be used": (uses, None)}
    for name, (found, bar) in names.items():
        seconds = [one / 1000 for one in found]
        yield Figure(part="page", name=f"{name}, studio just started", value=seconds[0], unit="s", bar=bar)
        yield Figure(part="page", name=name, value=median(seconds[1:]), unit="s", bar=bar, runs=tuple(seconds[1:]))
    yield Figure(part="page", name="all that it loads", value=max(sizes) / 1000, unit="KB", bar=300)


WATCH = """() => {
  const seen = { moves: [], frames: [] };
  let started = 0, last = 0;
  addEventListener("pointermove", () => (started = performance.now()), true);
  addEventListener("pointermove", () => seen.moves.push(performance.now() - started));
  const frame = (now) => {
    if (seen.painting) { if (last) seen.frames.push(now - last); last = now; } else last = 0;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  window.seen = seen;
}"""


def painting(model: str | None, quick: bool) -> Iterator[Figure]:
    """Strokes over a photograph of 24 megapixels."""
    height, width = (400, 600) if quick else (4000, 6000)
    with chromium() as browser, tempfile.TemporaryDirectory() as scratch:
        if browser is None:
            return
        path = Path(scratch, "photo.jpg")
        save_image(photograph("coffee", height, width), path)
        with studio() as (_, address):
            opened = ready(browser.new_context(viewport={"width": 1440, "height": 900}), address)
            begun = time.monotonic()
            opened.set_input_files("#files", str(path))
            opened.wait_for_selector("#toolbar [title^=Brush]")
            shown = time.monotonic() - begun
            opened.wait_for_timeout(1000)
            seen = strokes(opened, 2 if quick else 8)
    what = f"{height * width / 1e6:.3g} megapixels"
    yield Figure(part="painting", name=f"{what}, from the file to the stage", value=shown, unit="s")
    moves, frames = sorted(seen["moves"]), sorted(seen["frames"])
    yield Figure(part="painting", name=f"{what}, a move of the pointer", value=median(moves), unit="ms", bar=16)
    yield Figure(part="painting", name=f"{what}, the dearest move", value=moves[-1], unit="ms")
    yield Figure(part="painting", name=f"{what}, a frame", value=median(frames), unit="ms", bar=34)
    late = frames[int(0.95 * len(frames))]
    yield Figure(part="painting", name=f"{what}, 95 of 100 frames within", value=late, unit="ms", bar=50)
    yield Figure(part="painting", name=f"{what}, the longest frame", value=frames[-1], unit="ms")


def strokes(opened: Any, count: int) -> dict[str, list[float]]:
    """Paint across the stage; give what moves and frames took, milliseconds."""
    box, mouse = opened.locator("#stage").bounding_box(), opened.mouse
    opened.evaluate(WATCH)
    for number in range(count):
        y = box["y"] + box["height"] * (number + 1) / (count + 1)
        mouse.move(box["x"] + 0.2 * box["width"], y)
        mouse.down()
        opened.evaluate("seen.painting = true")
        mouse.move(box["x"] + 0.8 * box["width"], y + 20, steps=60)
        opened.evaluate("seen.painting = false")
        mouse.up()
    assert opened.is_enabled("#toolbar [title^=Undo]"), "nothing was painted"
    return opened.evaluate("seen")


# --- the server -------------------------------------------------------------------------------------------------------


def resident(pid: int, *, alone: bool = False) -> float:
    """Mebibytes of a process and all that it started, or of the process alone."""
    total, first = 0, psutil.Process(pid)
    for process in [first] if alone else [first, *first.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def clients(model: str | None, quick: bool) -> Iterator[Figure]:
    """32 clients at once, each with a photograph and a job; all cancel, and memory comes back."""
    height, width = (300, 400) if quick else (1500, 2000)
    data, mask = as_png(photograph("coffee", height, width)), as_png(hole(height, width))

    def one(address: str) -> list[int]:
        codes: list[int] = []
        with httpx.Client(base_url=address, timeout=PATIENCE, event_hooks={"response": [note(codes)]}) as client:
            try:
                image = upload(client, data)
                client.get(f"/api/images/{image}/preview")
                for _ in range(2):
                    submit(client, model, image, upload(client, mask, mask_for=image))
            except httpx.TransportError:
                codes.append(0)  # no answer at all
        return codes

    with studio() as (process, address), httpx.Client(base_url=address, timeout=PATIENCE) as client:
        small = upload(client, as_png(photograph("coffee", 60, 80)))
        first = submit(client, model, small, upload(client, as_png(hole(60, 80)))).json()["id"]
        wait(client, first, ("done",))
        before, server = resident(process.pid), resident(process.pid, alone=True)
        start = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            codes = [code for found in pool.map(one, [address] * CLIENTS) for code in found]
        seconds = time.monotonic() - start
        during = resident(process.pid)
        for job in client.get("/api/jobs").json():
            if job["state"] in ("queued", "running"):
                client.post(f"/api/jobs/{job['id']}/cancel")
        time.sleep(PAUSE)
        after, left = resident(process.pid), resident(process.pid, alone=True)
    bad = sum(code not in (200, 201, 202, 429) for code in codes)
    yield Figure(part="clients", name="requests that were not answered", value=bad, unit=f"of {len(codes)}", bar=0)
    yield Figure(part="clients", name="answered by 429, come again", value=codes.count(429), unit=f"of {len(codes)}")
    yield Figure(part="clients", name="until all were answered", value=seconds, unit="s")
    yield Figure(part="clients", name="memory before", value=before, unit="MiB")
    yield Figure(part="clients", name="more while they work", value=during - before, unit="MiB")
    # A worker that was ended is a fresh one now; the server stays the same.
    for who, change in (("", after - before), (", the server alone", left - server)):
        name = f"more {PAUSE} s after cancelling{who}"
        yield Figure(part="clients", name=name, value=change * 2**20 / 1e6, unit="MB", bar=100)


def note(codes: list[int]) -> Any:
    """Give a hook that writes down what was answered; 429 counts with Retry-After alone."""

    def hook(response: httpx.Response) -> None:
        good = response.status_code != 429 or "retry-after" in response.headers
        codes.append(response.status_code if good else 0)

    return hook


def ending(model: str | None, quick: bool) -> Iterator[Figure]:
    """From Ctrl-C to the end, while a page listens, and in the middle of a job."""
    height, width = (300, 400) if quick else (1500, 2000)
    data, mask = as_png(photograph("coffee", height, width)), as_png(hole(height, width))
    for busy in (False, True):
        runs = tuple(end_of(model, (data, mask) if busy else None) for _ in range(1 if quick else 3))
        name = "in the middle of a job" if busy else "nothing to do"
        yield Figure(part="ending", name=f"Ctrl-C, {name}", value=median(runs), unit="s", bar=5, runs=runs)


def end_of(model: str | None, images: tuple[bytes, bytes] | None) -> float:
    """Seconds that one studio takes to end."""
    with (
        studio() as (process, address),
        httpx.Client(base_url=address, timeout=PATIENCE) as client,
        client.stream("GET", "/api/events") as events,
    ):
        next(events.iter_lines())
        if images:
            image = upload(client, images[0])
            job = submit(client, model, image, upload(client, images[1], mask_for=image)).json()["id"]
            wait(client, job, ("running",))
            time.sleep(2)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(60)
        return time.monotonic() - start


# --- the preview of a blend -------------------------------------------------------------------------------------------

SOLVE = """
const { blended } = await import(process.argv[1]);
const [side, rounds] = process.argv.slice(2).map(Number);
const random = (i) => ((i * 2654435761) >>> 24);
const destination = new Uint8ClampedArray(4 * side * side).map((_, i) => (i % 4 === 3 ? 255 : random(i)));
const far = (i) => Math.hypot((i % side) - side / 2, Math.floor(i / side) - side / 2);
const alpha = (i) => (far(i) < 0.48 * side ? 255 : 0);
const piece = destination.map((value, i) => (i % 4 === 3 ? alpha(i >> 2) : 255 - value));
const times = [];
for (let i = -3; i < rounds; i++) {
  const start = process.cpuUsage();
  blended(piece, destination, side, side);
  const used = process.cpuUsage(start);
  if (i >= 0) times.push((used.user + used.system) / 1000);
}
console.log(JSON.stringify(times));
"""


def preview(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU time of one live preview of a blend, at the largest size that the page solves."""
    if NODE is None:
        print("  left out: needs node")
        return
    module = (STATIC / "poisson.js").as_uri()
    command = [NODE, "--input-type=module", "-e", SOLVE, module, str(SIDE), str(3 if quick else 15)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    runs = tuple(json.loads(done.stdout))
    yield Figure(
        part="preview", name=f"a disc in {SIDE} x {SIDE}", value=median(runs), unit="CPU ms", bar=100, runs=runs
    )


PARTS = {part.__name__: part for part in (page, painting, clients, ending, preview)}

if __name__ == "__main__":
    sys.exit(command_line("studio", "The studio", __doc__ or "", PARTS, MODEL))
