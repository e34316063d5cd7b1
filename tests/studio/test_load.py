"""Many clients at once, against a real server with its worker."""

from concurrent.futures import ThreadPoolExecutor

import httpx
from studio_help import as_bytes, photo

CLIENTS = 32


def test_every_one_of_32_clients_is_answered(address):
    data = as_bytes(photo(300, 400))

    def one(number):
        with httpx.Client(base_url=address, timeout=300) as client:
            stored = client.post("/api/images", files={"file": (f"{number}.png", data)})
            key = stored.json()["id"]
            shown = client.get(f"/api/images/{key}/preview")
            # Two for every client: more than the queue holds.
            body = {"application": "upscale", "inputs": {"image": key}, "model": "bicubic"}
            asked = [client.post("/api/jobs", json=body) for _ in range(2)]
        for answer in asked:
            assert answer.status_code != 429 or answer.headers["retry-after"] == "2"
        return [answer.status_code for answer in (stored, shown, *asked)]

    with ThreadPoolExecutor(CLIENTS) as pool:
        codes = list(pool.map(one, range(CLIENTS)))
    assert all(stored == 201 and shown == 200 and {*asked} <= {202, 429} for stored, shown, *asked in codes)
