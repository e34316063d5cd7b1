"""The way into the command line: help, errors in one line, exit codes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from cyclopts import App

import velatura
from velatura import __version__
from velatura.cli import app, main
from velatura.errors import Cancelled, InputError, MachineError
from velatura.image import ImageWarning


@pytest.fixture
def command():
    """Add a command that does what the test wants to ``velatura``, for the test."""
    added = []

    def add(body) -> None:
        one = App(name="try")
        one.default(body)
        app.command(one)
        added.append(one)

    yield add
    for _ in added:
        del app["try"]


def fails_with(error: BaseException):
    def body() -> None:
        raise error

    return body


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Give the one line on stderr; stdout is empty."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.strip()


def test_help_loads_no_heavy_library():
    program = (
        "import sys; from velatura.cli import main; code = main(['--help']);"
        "print(code, sorted({'torch', 'numpy', 'pydantic', 'PIL', 'scipy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "0 []\n"
    for name in app:
        assert name in done.stdout
    assert "velatura blend boat.png" in done.stdout


@pytest.mark.parametrize(
    ("words", "example"),
    [
        (["train"], "velatura train srresnet -o runs/srresnet"),
        (["evaluate"], "velatura evaluate restore --data sets --part"),
        (["generate"], "velatura generate vae-faces"),
        (["models"], ""),
        (["models", "show"], ""),
        (["demo"], ""),
        (["doctor"], ""),
    ],
)
def test_the_examples_are_the_command_s_own(words: list[str], example: str, capsys: pytest.CaptureFixture[str]):
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert example in text
    assert ("Examples:" in text) == bool(example)
    assert "boat.png" not in text


def test_a_wrong_word_by_position_is_named(capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "upscal", "--data", "."]) == 2
    assert one_line(capsys) == "velatura: error: TASK: unknown value 'upscal'; did you mean 'upscale'?"


def test_alone_it_prints_the_help(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("Usage: velatura COMMAND")


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["blnd"], "unknown command 'blnd'; did you mean 'blend'?"),
        (
            ["zzz"],
            "unknown command 'zzz'; known: blend, upscale, inpaint, restore, pipeline, stylize, generate, imagine, "
            "train, evaluate, models, studio, demo, doctor",
        ),
        (["--verison"], "unknown option '--verison'; did you mean '--version'?"),
    ],
)
def test_unknown_words(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    before = set(sys.modules)
    assert main(words) == 2
    assert one_line(capsys) == f"velatura: error: {message}"
    # To name the commands must not load them.
    assert not {name for name in set(sys.modules) - before if name.startswith("velatura.cli.")}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a.png: no such file"), 2, "error: a.png: no such file"),
        (MachineError("disk\nfull"), 1, "error: disk full"),
        (Cancelled("stopped"), 130, "error: stopped"),
        (KeyboardInterrupt(), 130, "error: interrupted; nothing was written"),
        (MemoryError(), 1, "error: out of memory; try a smaller image or a smaller --memory"),
        (OSError(errno.ENOSPC, "No space", "a.png"), 1, "error: a.png: the disk is full; nothing was written"),
        (PermissionError(errno.EACCES, "Permission denied", "a.png"), 2, "error: a.png: Permission denied"),
        (ZeroDivisionError("by\nzero"), 1, "error: unexpected ZeroDivisionError: by zero; this is a bug"),
    ],
)
def test_errors_are_one_line_with_their_code(command, error, code, message, capsys: pytest.CaptureFixture[str]):
    command(fails_with(error))
    assert main(["try"]) == code
    assert one_line(capsys).startswith(f"velatura: {message}")


def test_debugging_shows_the_traceback(command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("VELATURA_DEBUG", "1")
    command(fails_with(ZeroDivisionError("by zero")))
    assert main(["try"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_commands_give_the_exit_code(command):
    command(lambda: 1)
    assert main(["try"]) == 1


def test_warnings_are_one_line_once(command, capsys: pytest.CaptureFixture[str]):
    def body() -> None:
        for _ in range(3):
            warnings.warn("a.gif: of 3 frames\nthe first is used", ImageWarning, stacklevel=1)
            warnings.warn("of a library", UserWarning, stacklevel=1)
            warnings.warn_explicit("of another", UserWarning, "/home/velatura/lib/other.py", 1)
            warnings.warn_explicit("our own", UserWarning, velatura.__file__, 1)

    command(body)
    assert main(["try"]) == 0
    assert capsys.readouterr() == (
        "",
        "velatura: warning: a.gif: of 3 frames the first is used\nvelatura: warning: our own\n",
    )


def test_ctrl_c_during_the_imports_is_silent(tmp_path: Path):
    (tmp_path / "cyclopts.py").write_text("raise KeyboardInterrupt")
    program = "import sys; from velatura.cli import main; sys.exit(main(['--help']))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_reader_that_goes_away_is_no_error():
    program = "import sys; from velatura.cli import main; sys.exit(main(['--help']))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_it_is_a_command_of_the_shell(tmp_path: Path):
    script = Path(sys.executable).with_name("velatura")
    done = subprocess.run([script, "blend", "a.png"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("velatura: error: missing DESTINATION")


@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_spinning_unless_asked_to(given: str | None, policy: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    assert main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == policy


def test_python_runs_it_as_a_module():
    done = subprocess.run([sys.executable, "-m", "velatura", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, __version__)
