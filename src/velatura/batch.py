"""Folders: a folder in, a folder out, one image at a time.

`run_batch` lists the images, pairs the second inputs by name, gives the jobs to an engine (`velatura.engines`), whose
workers keep the manifest of the output folder (`velatura.manifest`): what decides the bytes, then one line per
finished image. A batch that was interrupted, even by ``kill -9``, goes on where it was: a line is written, and
synced, only after its image is in place, and images never share state, so that the bytes are those of an unbroken
run.

Folders may be URLs (`velatura.storage`). The list lies on the disk: memory does not grow with the number of images.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

from velatura import __version__, storage
from velatura.engines import Engine, Job, LocalEngine, Outcome, RayEngine, WorkSpec, file_sha256
from velatura.engines.work import line_of, relative
from velatura.errors import InputError, MachineError
from velatura.image import SUFFIXES
from velatura.manifest import MANIFEST, Manifest, begun_with, scratch_database
from velatura.task import Params, Progress, Task, check_apart, no_progress

__all__ = [
    "Engine",
    "Job",
    "LocalEngine",
    "Outcome",
    "Plan",
    "RayEngine",
    "Report",
    "WorkSpec",
    "output_suffix",
    "run_batch",
]

READ_ONLY = frozenset([".heic", ".heif"])  # the results become PNG
FORMAT_SUFFIXES = {"jpeg": ".jpg", "tiff": ".tif"}  # the other formats are called like their suffix

# --- which images, and where to --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Side:
    """An input of a batch: a folder, one file for all images, or nothing."""

    path: str | None
    is_folder: bool = False
    prints: Mapping[str, Any] | None = None  # of a file
    identity: str = ""

    @classmethod
    def of(cls, value: str | Path | None) -> Self:
        if value is None:
            return cls(None)
        path = storage.place(value)
        kind = storage.kind_of(path)
        if kind is None:
            raise InputError(f"{path}: no such file or folder")
        if kind == "folder":
            return cls(path, True)
        found = storage.find(path)
        assert found is not None
        return cls(path, False, _print(found), found.identity)


class Plan:
    """What a batch is to do: its jobs, in their order, from lists on the disk.

    The leading input's folder decides, or the first folder if the leading input is a file: its images, with those of
    its folders, sorted, hidden ones and the output folders left out. An input that is a file serves all images; of
    one that is a folder each image takes the file with the same path and stem, or else the one that has the image's
    name with a suffix more: so a batch calls what it makes beside its results.

    Parameters
    ----------
    kind : type of Task
    inputs : sequence of path or URL or None
        In the order of ``kind.inputs``; at least one is a folder, trailing optional ones may be left out.
    out : path or URL
        The output folder. Outputs keep the relative folder and the stem; the suffix is that of ``format``, else
        that of the leading input (PNG for HEIC, which is only read).
    format : str, optional
    beside : iterable of path, optional
        Other folders that the work writes into.

    Raises
    ------
    InputError
        No images, a missing file, or two outputs of one name.
    """

    def __init__(
        self,
        kind: type[Task],
        inputs: Sequence[str | Path | None],
        out: str | Path,
        *,
        format: str | None = None,
        beside: Iterable[str | Path] = (),
    ) -> None:
        self.out = storage.place(out)
        self._kind = kind
        self._format = format
        beside = [storage.place(folder) for folder in beside]
        for folder in beside:
            if storage.kind_of(folder) == "file":
                raise InputError(
                    f"{folder}: is a file; expected a folder for the pictures beside the outputs of a folder"
                )
        given = (*inputs, *(None for _ in range(len(kind.inputs) - len(inputs))))
        self._sides = [_Side.of(value) for value in given]
        written = {storage.resolved(folder) for folder in (self.out, *beside)}
        for side in self._sides:
            if side.is_folder and storage.resolved(side.path or "") in written:
                raise InputError(f"{side.path}: is an input folder; expected another one for the outputs")
        self._leading = next(index for index, one in enumerate(kind.inputs) if one.leading)
        folders = [index for index, side in enumerate(self._sides) if side.is_folder]
        if not folders:
            raise InputError("no input is a folder; a batch needs one")
        self._driver = self._leading if self._leading in folders else folders[0]
        self._lists = scratch_database()
        self._list(folders, written)
        if not len(self):
            name = self._sides[self._driver].path
            raise InputError(f"{name}: holds no images; known suffixes are {', '.join(sorted(SUFFIXES))}")
        self._refuse_two_of_one_name()

    def close(self) -> None:
        """Remove the lists."""
        self._lists.close()

    def __len__(self) -> int:
        """Count the images, with those that have no partner."""
        (count,) = self._lists.execute("SELECT count(*) FROM file WHERE side = ?", (self._driver,)).fetchone()
        return count

    def _list(self, folders: Sequence[int], written: Collection[str]) -> None:
        # Names are bytes: those of files need be no text. Folders before what begins like their names.
        self._lists.execute(
            "CREATE TABLE file (side INT, sort BLOB, stem BLOB, target BLOB, print TEXT, identity TEXT)"
        )
        with self._lists:
            for index in folders:
                found = storage.files(_given(self._sides[index].path), written)
                rows = (self._row(index, file) for file in found if PurePosixPath(file.path).suffix.lower() in SUFFIXES)
                self._lists.executemany("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?)", rows)
        for columns in ("side, sort", "side, stem", "identity", "target"):
            name = columns.replace(", ", "_")
            self._lists.execute(f"CREATE INDEX by_{name} ON file ({columns})")

    def _row(self, index: int, file: storage.File) -> tuple[Any, ...]:
        path = PurePosixPath(file.path)
        leading = self._sides[self._leading]
        suffix = output_suffix(path if leading.is_folder else PurePosixPath(leading.path or ""), self._format)
        target = _sortable(str(path.with_suffix(suffix))) if index == self._driver else None
        stem = _sortable(str(path.with_suffix("")))
        return index, _sortable(str(path)), stem, target, json.dumps(_print(file)), file.identity

    def _refuse_two_of_one_name(self) -> None:
        query = "SELECT target, min(sort), max(sort) FROM file WHERE side = ? GROUP BY target HAVING count(*) > 1"
        if found := self._lists.execute(query, (self._driver,)).fetchone():
            target, one, other = map(_plain, found)
            raise InputError(f"{one} and {other} would both become {target}; rename one of them")

    def jobs(self) -> Iterator[tuple[Job, str]]:
        """Give each job, and why it cannot be done: that it has no partner; empty where it can.

        Raises
        ------
        InputError
            Two files of one stem to choose from.
        """
        query = "SELECT sort, stem, target, print FROM file WHERE side = ? ORDER BY sort"
        for sort, stem, target, text in self._lists.execute(query, (self._driver,)):
            image = _plain(sort)
            chosen: list[str | None] = []
            prints: dict[str, Any] = {}
            missing = ""
            for index, (side, one) in enumerate(zip(self._sides, self._kind.inputs, strict=True)):
                if not side.is_folder:
                    chosen.append(side.path)
                    if side.prints is not None:
                        prints[one.name] = side.prints
                elif index == self._driver:
                    chosen.append(storage.join(_given(side.path), image))
                    prints[one.name] = json.loads(text)
                elif found := self._partner(index, sort, stem):
                    chosen.append(storage.join(_given(side.path), found[0]))
                    prints[one.name] = found[1]
                else:
                    missing = f"no {one.name} {PurePosixPath(image).with_suffix('')}.* in {side.path}"
                    chosen.append(None)
            yield Job(image, tuple(chosen), storage.join(self.out, _plain(target)), prints), missing

    def _partner(self, index: int, sort: bytes, stem: bytes) -> tuple[str, Mapping[str, Any]] | None:
        query = "SELECT sort, print FROM file WHERE side = ? AND stem = ? LIMIT 2"
        found = self._lists.execute(query, (index, stem)).fetchall()
        found = found or self._lists.execute(query, (index, sort)).fetchall()
        if len(found) > 1:
            names = " and ".join(sorted(_plain(row[0]) for row in found))
            name = self._kind.inputs[index].name
            raise InputError(f"{self._sides[index].path}: holds {names} for {_plain(sort)}; expected one {name}")
        return (_plain(found[0][0]), json.loads(found[0][1])) if found else None

    def made_from(self, path: str) -> str | None:
        """Name the image whose output a file is to be; None if it is none's."""
        try:
            target = _sortable(relative(path, self.out))
        except ValueError:  # it lies in another folder
            return None
        query = "SELECT sort FROM file WHERE side = ? AND target = ?"
        found = self._lists.execute(query, (self._driver, target)).fetchone()
        return _plain(found[0]) if found else None

    def is_input(self, identity: str) -> str | None:
        """Name the input that a file is, whatever it is called; None if it is none."""
        if not identity:
            return None
        for side in self._sides:
            if side.identity == identity:
                return side.path
        found = self._lists.execute("SELECT side, sort FROM file WHERE identity = ?", (identity,)).fetchone()
        return storage.join(_given(self._sides[found[0]].path), _plain(found[1])) if found else None


def _sortable(path: str) -> bytes:
    """Write a path so that bytes sort as its parts do."""
    return os.fsencode(path).replace(b"/", b"\0")


def _plain(sortable: bytes) -> str:
    return os.fsdecode(sortable.replace(b"\0", b"/"))


def _given(path: str | None) -> str:
    assert path is not None
    return path


def _print(file: storage.File) -> dict[str, Any]:
    """Tell by size and time whether an input is still the same file."""
    name = PurePosixPath(file.path).name
    # A link that leads nowhere has no size: opening it will say so, as the failure of one image.
    return {"file": name} | ({} if file.bytes is None else {"bytes": file.bytes, **file.mark})


def output_suffix(leading: Path | PurePosixPath, format: str | None) -> str:
    """Choose the suffix of an output: that of its format, else that of the leading input."""
    if format is not None:
        return FORMAT_SUFFIXES.get(format, f".{format}")
    return ".png" if leading.suffix.lower() in READ_ONLY else leading.suffix


# --- what decides the bytes -------------------------------------------------------------------------------------------


def _header(work: WorkSpec, out: str) -> dict[str, Any]:
    """Collect everything that decides the bytes of the outputs and where they lie, the inputs aside."""
    return {
        "manifest": 1,
        "velatura": __version__,
        "task": work.kind.name,
        "params": dict(work.params),
        "model": work.model,
        "model_sha256": _model_sha256(work.model or work.kind.default_model),
        "device": work.device,
        "memory": work.memory,
        "threads": work.threads,
        "format": work.save.format,
        "quality": work.save.quality,
        "mark": work.save.mark,
        "maps": {name: _beside(folder, out) for name, folder in work.maps.items()},
    }


def _beside(folder: str, out: str) -> str:
    """Name a folder as seen from the outputs, so that both may be moved."""
    return folder if storage.is_url(folder) or storage.is_url(out) else os.path.relpath(folder, out)


def _model_sha256(model: str | None) -> str | None:
    """Give the sha256 of a model that is a file or a name of the catalog; other names are the task's own affair."""
    if model is None:
        return None
    if Path(model).is_file():
        return file_sha256(Path(model))
    from velatura.catalog import cards

    return next((card.sha256 for card in cards() if card.name == model), None)


def _further_prints(kind: type[Task], params: Params) -> dict[str, Any]:
    """Tell whether what the options name beside inputs and model is still the same: styles, models of steps."""
    files = [Path(file) for file in kind.further_inputs(params)]
    prints = {str(file): file_sha256(file) for file in files if file.is_file()}
    prints |= {str(model): _model_sha256(str(model)) for model in kind.further_models(params)}
    return {"further": prints} if prints else {}


# --- the batch --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a batch.

    Attributes
    ----------
    done, skipped : int
        Images made now, and images that an earlier run had made.
    failed : tuple of Outcome
    seconds : float
    warnings : mapping
        Text of a warning -> names of the images that gave it.
    """

    done: int
    skipped: int
    failed: tuple[Outcome, ...]
    seconds: float
    warnings: Mapping[str, Sequence[str]]


def run_batch(
    work: WorkSpec,
    inputs: Sequence[str | Path | None],
    out: str | Path,
    *,
    engine: Engine | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Do the same work on every image of a folder.

    Parameters
    ----------
    work : WorkSpec
        ``work.save.overwrite`` starts anew in a folder that holds outputs.
    inputs : sequence of path or URL or None
        As for `Plan`.
    out : path or URL
        The output folder; it is made.
    engine : Engine, optional
        Default: this process. Where ``work.threads`` is None, it chooses; a resumed batch keeps what it had.
    resume : bool, optional
        Go on with what the manifest of the folder leaves: images that are not made, failed, or whose input changed.
        An output that the manifest does not know is what the interrupted run wrote last, and is made again.
    progress : callable, optional
        Called with images done, images to do, and the name of the last one.

    Returns
    -------
    Report
        One bad image does not stop the rest: it is in ``failed``.

    Raises
    ------
    InputError
        Nothing was done: see `Plan`; or the folder holds a manifest and neither ``resume`` nor overwriting was
        asked for; or the options are not those of the manifest; or another batch works in the folder.
    MachineError
        The disk is full, or a store does not answer. ``resume`` goes on.
    """
    start = time.perf_counter()
    out = storage.place(out)
    if resume and work.save.overwrite:
        raise InputError("--resume keeps what is done, --overwrite starts anew; expected one of them")
    params = work.checked()
    if names := work.kind.single_outputs(params):
        flag = names[0].replace("_", "-")
        raise InputError(f"--{flag} names one file, which every image of a folder would write; leave it out")
    engine = engine or LocalEngine()
    maps = {name: storage.place(folder) for name, folder in work.maps.items()}
    with closing(Plan(work.kind, inputs, out, format=work.save.format, beside=maps.values())) as plan:
        had = begun_with(out).get("threads") if resume and work.threads is None else None
        work = replace(work, maps=maps, threads=work.threads or had or engine.threads(work, len(plan)))
        batch = _Batch(plan, work, params)
        with storage.held(out), closing(batch.open(resume=resume)) as manifest:
            # What may be replaced is settled: an output that is there now is our own, from before an interruption.
            save = replace(work.save, overwrite=True)
            batch.work = replace(work, save=save, out=out, run=manifest.run)
            return batch.run(engine, manifest, progress or no_progress, start, clean=resume)


class _Batch:
    """A batch under way."""

    def __init__(self, plan: Plan, work: WorkSpec, params: Params) -> None:
        self.plan = plan
        self.work = work
        self._further = _further_prints(work.kind, params)
        self._there = _Outputs((plan.out, *work.maps.values()))
        self._failed: list[Outcome] = []
        self._warnings: dict[str, list[str]] = {}

    def jobs(self) -> Iterator[tuple[Job, str]]:
        """Give the jobs with all that tells whether they must be done again."""
        for job, missing in self.plan.jobs():
            yield (replace(job, prints={**job.prints, **self._further}) if self._further else job), missing

    def open(self, *, resume: bool) -> Manifest:
        """Make the output folder and settle what of it may be replaced."""
        out, overwrite = self.plan.out, self.work.save.overwrite
        path = storage.join(out, MANIFEST)
        header = _header(self.work, out)
        try:
            if not storage.is_url(out):
                Path(out).mkdir(parents=True, exist_ok=True)
            begun = storage.find(path) is not None
            if begun and not resume and not overwrite:
                raise InputError(f"{out}: holds an earlier batch; --resume goes on with it, --overwrite starts anew")
            self._check_outputs(replace_any=overwrite or (begun and resume))
            return (Manifest.resume if begun and resume else Manifest.begin)(out, header)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"{out}: is a file; expected a folder for the outputs of a folder") from None
        except PermissionError as error:
            raise InputError(f"{error.filename}: no permission to write; choose another output folder") from None

    def _check_outputs(self, *, replace_any: bool) -> None:
        """Keep every input, those of other jobs too: one that was replaced would be read by the next job."""
        there, expected, first = 0, 0, ""
        for job, missing in self.jobs():
            beside = self.work.map_files(job)
            expected += 1 + len(beside)
            if missing:
                continue
            check_apart(job.output, beside)
            for name, path in beside.items():
                if (other := self.plan.made_from(path)) is not None:
                    raise InputError(f"{path}: is to hold {name} of {job.name} and the result of {other}; rename one")
            for path in (job.output, *beside.values()):
                if (found := self._there.find(path)) is None:
                    continue
                if (source := self.plan.is_input(found.identity)) is not None:
                    raise InputError(f"{path}: is the input {source} and is never written onto; choose another folder")
                there, first = there + 1, first or path
        if there and not replace_any:
            raise InputError(
                f"{first}: exists already ({there} of {expected} outputs do); "
                "--overwrite replaces them, or choose another folder"
            )

    def run(self, engine: Engine, manifest: Manifest, hook: Progress, start: float, *, clean: bool) -> Report:
        """Do what is left, and report."""
        todo = skipped = 0
        folders: set[Path] = set()
        for job, missing in self.jobs():
            if missing:
                self._note(Outcome(job, missing))
                manifest.append(line_of(self._failed[-1], self.plan.out))
            elif self._is_done(job, manifest):
                skipped += 1
            else:
                todo += 1
                folders |= _folders_of(job, self.work) if clean else set()
        _remove_leftovers(folders)
        hook(0, todo, "")
        done = self._work(engine, manifest, todo, hook) if todo else 0
        self._failed.sort(key=lambda outcome: outcome.job.name)
        return Report(done, skipped, tuple(self._failed), time.perf_counter() - start, self._warnings)

    def _work(self, engine: Engine, manifest: Manifest, todo: int, hook: Progress) -> int:
        done = 0
        under_way: dict[str, Job] = {}
        left: set[Path] = set()

        def handed_out() -> Iterator[Job]:
            for job, missing in self.jobs():
                if not missing and not self._is_done(job, manifest):
                    under_way[job.output] = job
                    yield job

        try:
            # Whatever happens here, closing the engine's iterator stops its workers.
            with closing(_closable(engine.run(handed_out(), self.work))) as outcomes:
                for number, outcome in enumerate(outcomes, start=1):
                    if outcome.stop:
                        raise MachineError(f"{outcome.error} ({done} of {todo} done; free some space, then --resume)")
                    del under_way[outcome.job.output]
                    if outcome.untold:
                        manifest.append(line_of(outcome, self.plan.out))
                    left |= _folders_of(outcome.job, self.work) if outcome.interrupted else set()
                    self._note(outcome)
                    done += outcome.ok
                    hook(number, todo, outcome.job.name)
        finally:
            # Of workers that were killed in the middle.
            _remove_leftovers(left.union(*(_folders_of(job, self.work) for job in under_way.values())))
        return done

    def _note(self, outcome: Outcome) -> None:
        if not outcome.ok:
            self._failed.append(outcome)
        for text in outcome.warnings:
            self._warnings.setdefault(text, []).append(outcome.job.name)

    def _is_done(self, job: Job, manifest: Manifest) -> bool:
        size = manifest.size_of(relative(job.output, self.plan.out), job.prints)
        if size is None or (found := self._there.find(job.output)) is None or found.bytes != size:
            return False
        return all(self._there.find(path) is not None for path in self.work.map_files(job).values())


class _Outputs:
    """What lies in the output folders: a store is asked once for its list, and not once for each image."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._lists = scratch_database()
        self._lists.execute("CREATE TABLE there (path BLOB PRIMARY KEY, bytes INT) WITHOUT ROWID")
        urls = dict.fromkeys(folder for folder in folders if storage.is_url(folder))
        with self._lists:
            for folder in urls:
                if storage.kind_of(folder) is None:
                    continue
                rows = ((os.fsencode(storage.join(folder, file.path)), file.bytes) for file in storage.files(folder))
                self._lists.executemany("INSERT OR REPLACE INTO there VALUES (?, ?)", rows)

    def find(self, path: str) -> storage.File | None:
        """Look for an output, as it was when the batch began."""
        if not storage.is_url(path):
            return storage.find(path)
        row = self._lists.execute("SELECT bytes FROM there WHERE path = ?", (os.fsencode(path),)).fetchone()
        return storage.File(path, row[0], identity=path) if row else None


def _closable(outcomes: Iterator[Outcome]) -> Generator[Outcome, None, None]:
    """Give any iterator a ``close``, which reaches the one inside if that has it."""
    yield from outcomes


def _folders_of(job: Job, work: WorkSpec) -> set[Path]:
    """Name the folders here that a job writes into."""
    paths = (job.output, *work.map_files(job).values())
    return {Path(path).parent for path in paths if not storage.is_url(path)}


def _remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove the unfinished files of a run that was killed, and so could not do it itself."""
    for folder in folders:
        for file in folder.glob(".velatura-*.tmp"):
            file.unlink(missing_ok=True)
