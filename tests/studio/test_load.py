"""Many clients at once, and memory afterwards: against a real server with its worker. Slow."""

import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from studio_help import as_bytes, photo

pytest.importorskip("uvicorn", reason="needs velatura[studio]")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc"),
]

CLIENTS = 32


@pytest.fixture(scope="module")
def server():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = [sys.executable, "-m", "velatura", "studio", "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    process.stdout.readline()
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            httpx.get(f"{address}/api/samples", timeout=30)
            break
        except httpx.TransportError:
            time.sleep(0.2)
    yield process.pid, address
    process.terminate()
    process.wait(60)


def resident(pid):
    """Give the memory of a process and its children, MiB."""
    total = 0.0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        parent = re.search(r"PPid:\s+(\d+)", text)
        mine = status.parent.name == str(pid) or (parent is not None and parent[1] == str(pid))
        if mine and (found := re.search(r"VmRSS:\s+(\d+)", text)):
            total += int(found[1]) / 1024
    return total


def test_every_one_of_32_clients_is_answered(server):
    _, address = server
    data = as_bytes(photo(300, 400))

    def one(number):
        codes = []
        with httpx.Client(base_url=address, timeout=300) as client:
            for _ in range(3):
                answer = client.post("/api/images", files={"file": (f"{number}.png", data)})
                codes.append(answer.status_code)
                key = answer.json()["id"]
                codes.append(client.get(f"/api/images/{key}/preview").status_code)
                body = {"application": "upscale", "inputs": {"image": key}, "model": "bicubic"}
                answer = client.post("/api/jobs", json=body)
                codes.append(answer.status_code)
                if answer.status_code == 429:
                    assert answer.headers["retry-after"] == "2"
        return codes

    with ThreadPoolExecutor(CLIENTS) as pool:
        codes = [code for codes in pool.map(one, range(CLIENTS)) for code in codes]
    assert len(codes) == 9 * CLIENTS
    assert set(codes) <= {200, 201, 202, 429}
    print({code: codes.count(code) for code in sorted(set(codes))})


def test_memory_comes_back_after_cancelling(server):
    pid, address = server
    with httpx.Client(base_url=address, timeout=300) as client:

        def all_over():
            return all(job["state"] not in ("queued", "running") for job in client.get("/api/jobs").json())

        while not all_over():
            time.sleep(0.5)
        time.sleep(2)
        before = resident(pid)
        large = client.post("/api/images", files={"file": ("large.png", as_bytes(photo(1500, 2000)))}).json()["id"]
        mask = np.zeros((300, 400), np.uint8)
        mask[50:250, 50:350] = 255
        hole = client.post(
            "/api/images", files={"file": ("mask.png", as_bytes(mask))}, params={"mask_for": large}
        ).json()["id"]
        body = {"application": "inpaint", "inputs": {"image": large, "mask": hole}, "model": "texture"}
        job = client.post("/api/jobs", json=body).json()["id"]
        end = time.monotonic() + 60
        while client.get(f"/api/jobs/{job}").json()["stage"] in ("", "loading") and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(2)
        during = resident(pid)
        client.delete(f"/api/jobs/{job}")
        time.sleep(10)
        assert client.get(f"/api/jobs/{job}").json()["state"] == "cancelled"
        after = resident(pid)
    print(f"{before:.0f} MiB before, {during:.0f} during, {after:.0f} ten seconds after cancelling")
    assert after < before + 100
