"""A studio with its worker, for the tests of this folder."""

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
