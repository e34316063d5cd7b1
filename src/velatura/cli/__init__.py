"""The ``velatura`` command.

Commands are named by import path and loaded when they are called, so that ``velatura --help`` loads neither torch
nor pydantic. `main` is the one place where errors become a line on stderr and an exit code:

    0    done
    1    some files of a batch failed, or the machine did (disk full, out of memory)
    2    bad input or options
    130  interrupted

``VELATURA_DEBUG=1`` adds the traceback to every error.
"""

from __future__ import annotations

try:
    import difflib
    import errno
    import io
    import os
    import signal
    import sys
    import threading
    import warnings
    from collections.abc import Iterator, Sequence
    from contextlib import contextmanager
    from pathlib import Path
    from typing import Any, Literal, get_args, get_origin

    from cyclopts import App, CycloptsError, Group
    from cyclopts.exceptions import (
        CoercionError,
        MissingArgumentError,
        UnknownCommandError,
        UnknownOptionError,
        UnusedCliTokensError,
    )

    from velatura import __version__
    from velatura.errors import VelaturaError
except KeyboardInterrupt:
    # They take the first tenth of a second, when `main` cannot report Ctrl-C yet.
    raise SystemExit(130) from None

__all__ = ["app", "main"]

_IMAGES = Group("Images", sort_key=1)
_MODELS = Group("Models", sort_key=2)
_MORE = Group("More", sort_key=3)

_EPILOGUE = """\
Examples:
  velatura blend boat.png lake.jpg mask.png --at 420,310 -o out.jpg
  velatura blend boats/ lake.jpg masks/ -o out/      (a folder in, a folder out)

An output that exists is replaced only with --overwrite; an input never is.
More: velatura COMMAND --help, velatura doctor, and docs/index.md."""

_TRAINING = """\
Examples:
  velatura train srresnet -o runs/srresnet --set data=sets --max-minutes 60
  velatura train srresnet -o runs/srresnet --set data=sets --resume
  velatura train srgan -o runs/srgan --config srgan_paper --set photographs=DIV2K/"""

_MEASURING = """\
Examples:
  velatura evaluate upscale --data sets --model srresnet --json figures.json
  velatura evaluate restore --data sets --part scratches
  velatura evaluate imagine --data sets --model imagine.safetensors --judge other.safetensors
  velatura evaluate fidelity --data results/ --reference originals/ --protocol y4"""

_PACKAGE = Path(__file__).parents[1]

app = App(
    name="velatura",
    help="Generative image editing: blend, upscale, inpaint, train, measure. On a CPU, offline.",
    usage="Usage: velatura COMMAND [options]",
    help_format="plaintext",
    help_epilogue=_EPILOGUE,
    version=__version__,
    group_commands=_MORE,
    # `main` prints errors and decides the exit code.
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
app.command("velatura.cli.blend:blend", name="blend", group=_IMAGES, help="Put a piece of one photograph into another.")
app.command("velatura.cli.upscale:upscale", name="upscale", group=_IMAGES, help="Enlarge a photograph.")
app.command("velatura.cli.inpaint:inpaint", name="inpaint", group=_IMAGES, help="Fill holes in a photograph.")
app.command("velatura.cli.restore:restore", name="restore", group=_IMAGES, help="Restore an old photograph.")
app.command("velatura.cli.pipeline:pipeline", name="pipeline", group=_IMAGES, help="Run several applications in a row.")
app.command("velatura.cli.stylize:stylize", name="stylize", group=_IMAGES, help="Paint a photograph in any style.")
app.command("velatura.cli.generate:generate", name="generate", group=_IMAGES, help="Make images from noise.")
app.command("velatura.cli.imagine:imagine", name="imagine", group=_IMAGES, help="Make pictures from words.")
app.command(
    "velatura.cli.train:train",
    name="train",
    group=_MODELS,
    help="Train a model from a recipe.",
    help_epilogue=_TRAINING,
)
app.command(
    "velatura.cli.evaluate:evaluate",
    name="evaluate",
    group=_MODELS,
    help="Measure a model on your images.",
    help_epilogue=_MEASURING,
)
app.command("velatura.cli.models:models", name="models", group=_MODELS, help="List, show, verify, export the models.")
app.command("velatura.cli.studio:studio", name="studio", group=_MORE, help="Do all this in a local web page.")
app.command(
    "velatura.cli.demo:demo",
    name="demo",
    group=_MORE,
    help="Run every application on free photographs.",
    help_epilogue="",
)
app.command(
    "velatura.cli.doctor:doctor",
    name="doctor",
    group=_MORE,
    help="Say what this machine can do.",
    help_epilogue="",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``velatura``; None takes those of the process.

    Returns
    -------
    int
        The exit code: 0, 1, 2 or 130 as described above.
    """
    # Read when torch is loaded. Threads that wait spinning take the time of those they wait for: beside other work on
    # all cores a command takes several times as long; alone, waiting asleep costs next to nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with _one_line_warnings(), _stop_on_termination():
        try:
            # A file name may hold what the terminal cannot show; that must not undo the work.
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="backslashreplace")
            code = app(sys.argv[1:] if argv is None else list(argv))
            # Here and not at exit: a reader that went away is noticed when the buffer is written.
            sys.stdout.flush()
        except BaseException as error:
            return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: BaseException) -> int:
    """Print ``error`` as one line and give its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, BrokenPipeError):
        # `velatura ... | head`: nobody listens. The interpreter must not complain about it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if os.environ.get("VELATURA_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    message, code = _describe(error)
    print(f"velatura: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _describe(error: BaseException) -> tuple[str, int]:
    """Put any error into words, with the exit code that it means."""
    if isinstance(error, VelaturaError):
        return str(error), error.exit_code
    if isinstance(error, CycloptsError):
        return _describe_usage(error), 2
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; nothing was written", 130
    # torch.OutOfMemoryError by its name: torch may not be loaded, and must not be because of an error.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; try a smaller image or a smaller --memory", 1
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}the disk is full; nothing was written", 1
    if isinstance(error, OSError) and error.filename:
        paths = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
        return f"{error.filename}: {error.strerror}", 2 if isinstance(error, paths) else 1
    name = type(error).__name__
    return f"unexpected {name}: {error}; this is a bug, VELATURA_DEBUG=1 shows the traceback", 1


def _describe_usage(error: CycloptsError) -> str:
    """Say in one line what is wrong with the words of the command, and name the nearest right one."""
    command = " ".join(("velatura", *(error.command_chain or ())))
    more = f"see {command} --help"
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        # The parser's own message would import every command to list them.
        word = error.unused_tokens[0]
        is_option = word.startswith("-")
        known = [name for name in error.app or app if name.startswith("-") == is_option]
        advice = _nearest(word, known) or f"known: {', '.join(known)}"
        return f"unknown {'option' if is_option else 'command'} {word!r}; {advice}"
    if isinstance(error, UnknownOptionError):
        word = (error.token.keyword or error.token.value).partition("=")[0]
        known = [name for argument in error.argument_collection if argument.parse for name in argument.names]
        return f"unknown option {word!r}; {_nearest(word, known) or more}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        argument = error.argument
        name = argument.name if argument.name.startswith("-") else argument.name.upper()
        if error.keyword or argument.tokens:
            return f"{error.keyword or name} needs a value; {more}"
        text = argument.parameter.help or ""
        what = f" ({text[:1].lower()}{text[1:].rstrip('.')})" if text else ""
        return f"missing {min(argument.names, key=len, default='') or name}{what}; {more}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"one word too many: {error.unused_tokens[0]!r}; {more}"
    if isinstance(error, CoercionError) and error.token and get_origin(error.target_type) is Literal:
        word, known = error.token.value, get_args(error.target_type)
        name = error.token.keyword or (error.argument.name if error.argument else "")
        name = name if name.startswith("-") else name.upper()
        return f"{name}: unknown value {word!r}; {_nearest(word, known) or 'known: ' + ', '.join(known)}"
    error.verbose = False
    text = " ".join(str(error).split()).rstrip(".").replace('"', "'")
    return f"{text[:1].lower()}{text[1:]}; {more}"


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Print our warnings as one line each, once, and keep those of libraries for the debugging of libraries."""
    seen = set()

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
        text = " ".join(str(message).split())
        ours = category.__module__.partition(".")[0] == "velatura" or _PACKAGE in Path(filename).parents
        if ours and text not in seen:
            seen.add(text)
            print(f"velatura: warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        # "always": of the same warning on two images, the text tells which is which.
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def _stop_on_termination() -> Iterator[None]:
    """Take SIGTERM like Ctrl-C, so that a time limit or a container's stop leaves no temporary file behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
