import importlib.util
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from velatura.cli import main

pytest.importorskip("uvicorn", reason="needs velatura[studio]")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(*words):
    """Start the studio as a command; give the process and its first line."""
    command = [sys.executable, "-m", "velatura", "studio", *words]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_ends_it_though_a_page_listens():
    port = free_port()
    process, line = start("--port", str(port))
    assert line == f"Velatura studio: http://127.0.0.1:{port}/"
    # Nobody is refused from the line on.
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/events", timeout=60)
    assert page.readline().startswith(b"event: jobs")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_an_address_that_is_taken_is_one_line(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["studio", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"velatura: error: cannot listen on 127.0.0.1:{port} (")
    assert error.count("\n") == 1


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "fastapi" else real(name, *rest)
    )
    assert main(["studio"]) == 1
    assert capsys.readouterr().err == "velatura: error: the studio needs fastapi; pip install 'velatura[studio]'\n"
