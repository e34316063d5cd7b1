"""The interface and the page; `velatura.studio` lists the addresses."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from fastapi import FastAPI, File, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from velatura import __version__, catalog
from velatura.errors import InputError, MachineError, TooManyPixels, VelaturaError
from velatura.image import save_image
from velatura.studio import pictures
from velatura.studio.forms import Asked, StepAsked, check, described, forms
from velatura.studio.guard import Guard
from velatura.studio.jobs import Full, Jobs
from velatura.studio.samples import SAMPLES
from velatura.studio.settings import Settings
from velatura.studio.store import MEDIA, SUFFIX, Item, NoRoom, Store, Unknown, plain_name
from velatura.studio.worker import give_back
from velatura.studio.zips import streamed

__all__ = ["Studio", "create_app"]

STATIC = Path(__file__).with_name("static")
RETRY = 2  # seconds after which a full queue may be asked again
PULSE = 15  # seconds after which a silent stream of events shows that it lives
LONGEST = 1000  # characters of a text
CHUNK = 1 << 20
ARCHIVES = 16  # zips that can be fetched, the newest ones

T = TypeVar("T")
Key = Annotated[str, Field(min_length=1, max_length=64)]


# --- what clients send ------------------------------------------------------------------------------------------------


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _all_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    if isinstance(value, list):
        return all(map(_all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


class StepRequest(_Body):
    """One step of a pipeline."""

    application: str = Field(max_length=64)
    inputs: dict[str, Key | list[Key]] = Field({}, max_length=8, description="ids of further images, by name")
    params: dict[str, JsonValue] = Field({}, max_length=64, description="options, as /api/applications describes them")
    model: str | None = Field(None, max_length=64)

    @model_validator(mode="after")
    def _finite(self) -> StepRequest:
        if not _all_finite(self.params):
            raise ValueError("numbers have to be finite")
        return self


class JobRequest(StepRequest):
    """What is to be done."""

    text: str | None = Field(None, max_length=LONGEST, description="what imagine is to show")
    steps: list[StepRequest] = Field([], max_length=16, description="of a pipeline, in their order")
    vary: tuple[int, float] | None = Field(None, description="number of a draw among its latents, how much (0 to 1)")
    by: str | None = Field(None, max_length=64, description="who asks, by a name of its own; comes back with the job")
    keep: bool = Field(False, description="results never make way for others while the one who asks listens")

    @model_validator(mode="after")
    def _share(self) -> JobRequest:
        if self.vary is not None and not 0 <= self.vary[1] <= 1:
            raise ValueError("vary: expected a share from 0 to 1")
        return self

    def asked(self) -> Asked:
        """Give it without its wrapping."""
        steps = tuple(StepAsked(step.application, step.inputs, step.params, step.model) for step in self.steps)
        return Asked(
            *(self.application, self.inputs, self.params, self.model, self.text),
            *(steps, self.vary, self.by, self.keep),
        )


class CutoutRequest(_Body):
    """How a piece is cut out."""

    mask: Key | None = Field(None, description="id of a mask of the image's size; the image's own opacity if left out")
    degrees: float = Field(0, ge=-360, le=360, allow_inf_nan=False, description="turned clockwise about its middle")


class ArchiveRequest(_Body):
    """What goes into a zip."""

    images: list[Key] = Field(min_length=1, max_length=10_000)
    name: str = Field("results", max_length=120)


# --- the application --------------------------------------------------------------------------------------------------


class Ascii(JSONResponse):
    """JSON that holds whatever a client sent, half characters too."""

    def render(self, content: Any) -> bytes:
        """Write it."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Studio:
    """What the addresses share: settings, files, jobs.

    Parameters
    ----------
    settings : Settings
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(int(settings.quota_megabytes * 2**20), max_megapixels=settings.max_megapixels)
        self.jobs = Jobs(self.store, settings.queue)
        self.store.needed = self.jobs.needed
        self.archives: dict[str, tuple[str, list[Item]]] = {}
        # One image is decoded at a time: many clients must not fill the memory.
        self._decoding = asyncio.Semaphore(1)

    async def decode(self, work: Callable[[], T]) -> T:
        """Do work on pixels beside the event loop; the memory that it took is given back."""

        def done() -> T:
            try:
                return work()
            finally:
                give_back()

        async with self._decoding:
            return await asyncio.to_thread(done)

    def close(self) -> None:
        """End the worker, remove the files."""
        self.jobs.close()
        self.store.close()

    # --- files --------------------------------------------------------------------------------------------------------

    async def take(self, file: UploadFile, mask_for: str | None) -> Item:
        """Store an upload; a mask comes to the size of its image."""
        goal = None if mask_for is None else self.store.image(mask_for)
        path, name = self.store.new_path(), plain_name(file.filename)
        try:
            with path.open("wb") as target:
                while chunk := await file.read(CHUNK):
                    await asyncio.to_thread(target.write, chunk)
            if goal is None:
                return await asyncio.to_thread(self.store.add, path, name)
            return await self.made(name, lambda made: self._fit(path, made, goal, name))
        finally:
            path.unlink(missing_ok=True)

    def _fit(self, path: Path, made: Path, goal: Item, name: str) -> None:
        size = goal.height, goal.width
        with _named({path: name}):
            pictures.fit_mask(path, made, size, max_megapixels=self.settings.max_megapixels)

    async def made(self, name: str, make: Callable[[Path], None]) -> Item:
        """Store a PNG that ``make`` writes."""
        path = self.store.new_path()
        try:
            await self.decode(lambda: make(path))
            return await asyncio.to_thread(self.store.add, path, name)
        finally:
            path.unlink(missing_ok=True)

    async def preview(self, item: Item, side: int) -> Path:
        """Give the preview of an image, made once."""
        path = self.store.preview_path(item, side)
        limit = self.settings.max_megapixels

        def write() -> None:
            if not path.exists():
                pictures.write_preview(item.path, path, side, max_megapixels=limit)

        with _named({item.path: item.name}):
            await self.decode(write)
        return path

    async def converted(self, item: Item, format: str, quality: int | None) -> Path:
        """Write an image in another format, for the caller to remove."""
        path, limit = self.store.new_path(), self.settings.max_megapixels
        try:
            with _named({item.path: item.name, path: item.name}):
                await self.decode(lambda: pictures.convert(item.path, path, format, quality, max_megapixels=limit))
        except VelaturaError:
            path.unlink(missing_ok=True)
            raise
        return path

    def archive(self, keys: list[str], name: str) -> dict[str, Any]:
        """Name a zip of images; it is written when it is fetched, so that it takes no room."""
        items = []
        for key in dict.fromkeys(keys):
            with suppress(Unknown):
                items.append(self.store.image(key))
        if not items:
            raise Unknown("none of these images is here any longer: they were removed, or made way for newer ones")
        key, label = secrets.token_urlsafe(16), f"{plain_name(name, 'results')}.zip"
        self.archives[key] = label, items
        for old in list(self.archives)[:-ARCHIVES]:
            del self.archives[old]
        return {"id": key, "name": label, "images": len(items), "left_out": len(set(keys)) - len(items)}


def create_app(settings: Settings | None = None) -> ASGIApp:
    """Make the application with everything behind it.

    Parameters
    ----------
    settings : Settings, optional

    Returns
    -------
    ASGI application
        ``app.studio`` is the `Studio` behind it.
    """
    studio = Studio(settings or Settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        studio.jobs.start()
        # The first page should not wait for what the applications import; nor should Ctrl-C.
        threading.Thread(target=forms, name="velatura-studio-warming", daemon=True).start()
        try:
            yield
        finally:
            await asyncio.to_thread(studio.close)

    app = FastAPI(
        title="Velatura studio",
        version=__version__,
        description="What the command line can do, over HTTP. Whatever is refused is answered by one line.",
        lifespan=lifespan,
        docs_url=None,  # ours loads nothing from elsewhere
        redoc_url=None,
        default_response_class=Ascii,
    )
    app.state.studio = studio
    _add_errors(app)
    _add_images(app, studio)
    _add_jobs(app, studio)
    _add_catalog(app)
    _add_pages(app)
    guarded = Guard(app, studio.settings)
    guarded.studio = studio  # pyright: ignore[reportAttributeAccessIssue]
    return guarded


def _add_errors(app: FastAPI) -> None:
    """Answer whatever goes wrong by one line."""

    @app.exception_handler(VelaturaError)
    async def ours(_: Request, error: Exception) -> Response:
        match error:
            case Full():
                return Ascii({"error": str(error)}, 429, {"retry-after": str(RETRY)})
            case Unknown():
                return Ascii({"error": str(error)}, 404)
            case TooManyPixels():
                return Ascii({"error": str(error)}, 413)
            case NoRoom() | MachineError():
                return Ascii({"error": str(error)}, 507)
        return Ascii({"error": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        message = first["msg"].removeprefix("Value error, ")
        return Ascii({"error": f"{where}: {message}" if where else message}, 422)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        line = " ".join(f"unexpected {type(error).__name__}: {error}".split())
        print(f"velatura: error: {line}; this is a bug, VELATURA_DEBUG=1 shows the traceback", file=sys.stderr)
        return Ascii({"error": line}, 500)

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return Ascii({"error": str(error.detail).lower()}, error.status_code, error.headers)


def _add_images(app: FastAPI, studio: Studio) -> None:
    store, limit = studio.store, studio.settings.max_megapixels

    @app.post("/api/images", status_code=201)
    async def upload(
        file: Annotated[UploadFile, File(description="an image: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF")],
        mask_for: Annotated[Key | None, Query(description="id of the image that this is a mask for")] = None,
    ) -> dict[str, Any]:
        """Upload an image; a mask that was painted on a preview comes to the image's size."""
        return (await studio.take(file, mask_for)).described()

    @app.get("/api/images/{key}")
    async def describe(key: str) -> dict[str, Any]:
        """Say what is known of an image."""
        return store.get(key).described()

    @app.delete("/api/images/{key}", status_code=204)
    async def forget(key: str) -> None:
        """Remove a file."""
        if key in store.needed():
            raise InputError("a job still needs this image; cancel it first")
        store.get(key)
        store.remove(key)

    @app.get("/api/images/{key}/preview", response_class=Response)
    async def preview(key: str, side: Annotated[Literal["256", "1024", "2048"], Query()] = "2048") -> Response:
        """Give an image for a screen: 8 bits, at most so many pixels a side."""
        path = await studio.preview(store.image(key), int(side))
        with path.open("rb") as file:
            media = "image/png" if file.read(4) == b"\x89PNG" else "image/jpeg"
        return FileResponse(path, media_type=media, headers={"cache-control": "private, max-age=3600, immutable"})

    @app.get("/api/files/{key}", response_class=Response)
    async def fetch(
        key: str,
        format: Annotated[Literal["png", "jpeg", "webp", "tiff", "avif", "bmp", "gif"] | None, Query()] = None,
        quality: Annotated[int | None, Query(ge=1, le=100)] = None,
    ) -> Response:
        """Give a stored file, or an image in another format, with its profile and metadata."""
        item = store.get(key)
        if format is None or (format == item.format and quality is None):
            return FileResponse(item.path, media_type=item.media, filename=item.name)
        path = await studio.converted(store.image(key), format, quality)
        name = Path(item.name).stem + SUFFIX.get(format, f".{format}")
        sent = BackgroundTask(path.unlink, missing_ok=True)
        return FileResponse(path, media_type=MEDIA[format], filename=name, background=sent)

    @app.post("/api/images/{key}/cutout", status_code=201)
    async def cutout(key: str, asked: CutoutRequest) -> dict[str, Any]:
        """Cut a piece out by a mask, and turn it; the result's opacity is the mask."""
        item = store.image(key)
        mask = None if asked.mask is None else store.image(asked.mask).path
        name = f"{Path(item.name).stem}-cutout.png"
        make = lambda path: pictures.cut_out(item.path, mask, path, asked.degrees, max_megapixels=limit)  # noqa: E731
        with _named({item.path: item.name}):
            return (await studio.made(name, make)).described()

    @app.post("/api/images/{key}/opacity", status_code=201)
    async def opacity(key: str) -> dict[str, Any]:
        """Give an image's opacity as a mask: white = opaque."""
        item = store.image(key)
        make = lambda path: pictures.mask_of(item.path, path, max_megapixels=limit)  # noqa: E731
        with _named({item.path: item.name}):
            return (await studio.made(f"{Path(item.name).stem}-mask.png", make)).described()

    @app.post("/api/archives", status_code=201)
    async def archive(asked: ArchiveRequest) -> dict[str, Any]:
        """Name a zip of images; ``left_out`` counts those that are no longer there."""
        return studio.archive(asked.images, asked.name)

    @app.get("/api/archives/{key}", response_class=Response)
    async def fetch_archive(key: str) -> Response:
        """Give a zip."""
        if key not in studio.archives:
            raise Unknown("no such zip here; ask for it again")
        name, items = studio.archives[key]
        files = [(item.name, item.path) for item in items]
        return StreamingResponse(streamed(files), media_type="application/zip", headers=_attachment(name))


def _attachment(name: str) -> dict[str, str]:
    """Give the header by which a browser saves an answer under a name."""
    quoted = quote(name)
    label = f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
    return {"content-disposition": f"attachment; {label}"}


@contextmanager
def _named(names: Mapping[Path, str]) -> Iterator[None]:
    """Let errors name files as people know them."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for path, name in names.items():
            text = text.replace(str(path), name)
        raise type(error)(text) from None


def _add_jobs(app: FastAPI, studio: Studio) -> None:
    jobs, settings = studio.jobs, studio.settings

    @app.post("/api/jobs", status_code=202)
    async def submit(request: JobRequest) -> dict[str, Any]:
        """Queue work. 429 says that too much waits, and Retry-After when to come again."""
        asked = request.asked()
        checked = await asyncio.to_thread(check, asked, studio.store, settings)
        return jobs.submit(asked, checked).described()

    @app.get("/api/jobs")
    async def list_jobs() -> list[dict[str, Any]]:
        """Give all jobs, the oldest first."""
        return [job.described() for job in jobs.all()]

    @app.get("/api/jobs/{key}")
    async def one_job(key: str) -> dict[str, Any]:
        """Give one job."""
        return jobs.get(key).described()

    @app.post("/api/jobs/{key}/cancel")
    async def cancel(key: str) -> dict[str, Any]:
        """Cancel what waits or runs; what is over stays."""
        return jobs.cancel(key).described()

    @app.delete("/api/jobs/{key}")
    async def forget(key: str) -> dict[str, Any]:
        """Forget a job that is over, with its results; cancel one that is not."""
        return jobs.forget(key).described()

    @app.get("/api/events", response_class=Response)
    async def events(by: Annotated[str | None, Query(max_length=64)] = None) -> Response:
        """Stream every change of every job, as server-sent events; what is there comes first."""
        if jobs.listeners >= settings.listeners:
            raise Full(f"{jobs.listeners} clients listen already; close a page")
        return StreamingResponse(_events(jobs, by), media_type="text/event-stream")


async def _events(jobs: Jobs, by: str | None = None) -> AsyncIterator[str]:
    queue = jobs.listen(by)
    try:
        yield _event("jobs", [job.described() for job in jobs.all()])
        while True:
            try:
                message = await asyncio.wait_for(queue.get(), PULSE)
            except TimeoutError:
                yield ": alive\n\n"
                continue
            if message is None:
                return
            yield _event(*message)
    finally:
        jobs.leave(queue)


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _add_catalog(app: FastAPI) -> None:
    studio: Studio = app.state.studio

    @app.get("/api/applications")
    async def applications() -> dict[str, Any]:
        """Describe all applications: their images, options and models; and the studio's limits."""
        limits = {
            "upload_megabytes": studio.settings.upload_megabytes,
            "max_megapixels": studio.settings.max_megapixels,
            "draws": studio.settings.draws,
        }
        found = await asyncio.to_thread(lambda: [described(one) for one in forms().values()])
        return {"version": __version__, "limits": limits, "applications": found}

    @app.get("/api/models")
    async def models() -> list[dict[str, Any]]:
        """Give the cards of all models."""
        return [card.model_dump(mode="json") for card in catalog.cards()]

    @app.get("/api/samples")
    async def samples() -> list[dict[str, str]]:
        """Name the free photographs."""
        return [
            {"name": name, "title": sample.title, "application": sample.application} for name, sample in SAMPLES.items()
        ]

    @app.post("/api/samples/{name}", status_code=201)
    async def open_sample(name: str) -> dict[str, Any]:
        """Put a free photograph into the store, with what belongs to it."""
        if name not in SAMPLES:
            raise Unknown(f"no sample {name[:40]!r}; there are {', '.join(SAMPLES)}")
        sample = SAMPLES[name]
        images = await studio.decode(sample.images)
        stored = {}
        for role, array in images.items():
            label = f"{name}.png" if len(images) == 1 else f"{name}-{role}.png"
            make = lambda path, array=array: save_image(array, path, format="png") and None  # noqa: E731
            stored[role] = (await studio.made(label, make)).described()
        return {"application": sample.application, "images": stored, "params": dict(sample.place())}


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return FileResponse(STATIC / "docs.html", headers={"cache-control": "no-cache"})

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
