"""What the tests of the studio share: a client that uploads and waits, and a picture."""

import io
import time

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

__all__ = ["ADDRESS", "Client", "as_bytes", "photo"]

ADDRESS = "http://127.0.0.1:7860"


class Client(TestClient):
    """A test client that knows how to upload and to wait."""

    def upload(self, image, name="photo.png", **query):
        """Upload an array or bytes; give what is known of it."""
        answer = self.post("/api/images", files={"file": (name, as_bytes(image))}, params=query)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def submit(self, application, inputs=None, **asked):
        return self.post("/api/jobs", json={"application": application, "inputs": inputs or {}, **asked})

    def run(self, application, inputs=None, **asked):
        """Do a job; give it when it is over."""
        answer = self.submit(application, inputs, **asked)
        assert answer.status_code == 202, answer.text
        return self.wait(answer.json()["id"])

    def wait(self, job, seconds=120, states=("done", "failed", "cancelled")):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.get(f"/api/jobs/{job}").json()
            if found["state"] in states:
                return found
            time.sleep(0.05)
        raise AssertionError(f"still {found['state']}: {found}")

    def pixels(self, key):
        """Give a stored image as an array."""
        return np.asarray(Image.open(io.BytesIO(self.get(f"/api/files/{key}").content)))


def as_bytes(image):
    if isinstance(image, bytes):
        return image
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def photo(height=40, width=56, seed=0):
    """Smooth colours and some grain."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width] / max(height, width)
    smooth = np.stack([rows, cols, 1 - rows], -1) * 200 + 20
    return (smooth + rng.integers(0, 8, smooth.shape)).astype(np.uint8)
