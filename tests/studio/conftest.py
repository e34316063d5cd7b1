"""A studio with its worker, for the tests of this folder."""

import os
import socket
import subprocess
import sys

import pytest
from studio_help import ADDRESS, Client

from velatura.studio.app import create_app
from velatura.studio.settings import Settings


@pytest.fixture(scope="session")
def client():
    """Give a studio with its worker: one for all tests, as its start takes seconds."""
    with Client(create_app(Settings()), base_url=ADDRESS) as found:
        yield found


@pytest.fixture
def idle():
    """Give a function that makes a studio whose worker was never started."""

    def make(**settings):
        app = create_app(Settings(**settings))
        studios.append(app.studio)
        return Client(app, base_url=ADDRESS)

    studios = []
    yield make
    for studio in studios:
        studio.close()


@pytest.fixture(scope="module")
def address():
    """Give the address of a studio that runs as its command, in a process of its own."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = [sys.executable, "-m", "velatura", "studio", "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Velatura studio: http://127.0.0.1:{port}/\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
