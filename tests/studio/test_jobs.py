import asyncio
import json
import os
import time

import numpy as np
import pytest
from studio_help import photo


def slow(client):
    """Give what takes minutes if nobody stops it."""
    image = client.upload(photo(256, 256), "slow.png")
    mask = np.zeros((256, 256), np.uint8)
    mask[40:200, 40:200] = 255
    return {"image": image["id"], "mask": client.upload(mask)["id"]}, {
        "model": "texture",
        "params": {"candidates": 32},
    }


@pytest.fixture
def busy(client):
    """Give a job that runs."""
    inputs, asked = slow(client)
    job = client.submit("inpaint", inputs, **asked).json()
    client.wait(job["id"], states=("running",))
    yield job
    if client.get(f"/api/jobs/{job['id']}").json()["state"] == "running":
        client.post(f"/api/jobs/{job['id']}/cancel")
        client.wait(job["id"])


def test_a_running_job_is_cancelled_and_the_next_one_runs(client, busy):
    start = time.monotonic()
    client.post(f"/api/jobs/{busy['id']}/cancel")
    assert client.wait(busy["id"])["state"] == "cancelled"
    assert time.monotonic() - start < 5
    image = client.upload(photo())
    assert client.run("upscale", {"image": image["id"]}, model="bicubic")["state"] == "done"


def test_a_waiting_job_is_cancelled_without_running(client, busy):
    image = client.upload(photo())
    waiting = client.submit("upscale", {"image": image["id"]}, model="bicubic").json()
    assert waiting["state"] == "queued"
    assert client.post(f"/api/jobs/{waiting['id']}/cancel").json()["state"] == "cancelled"
    assert client.get(f"/api/jobs/{busy['id']}").json()["state"] == "running"


def test_an_image_that_a_job_needs_stays(client, busy):
    answer = client.delete(f"/api/images/{busy['inputs']['image']}")
    assert answer.status_code == 400
    assert answer.json()["error"] == "a job still needs this image; cancel it first"


def test_kept_results_stay_while_their_client_listens(client):
    image = client.upload(photo())
    job = client.run("upscale", {"image": image["id"]}, model="bicubic", by="a page", keep=True)
    jobs, key = client.app.studio.jobs, job["results"][0]["id"]

    async def needed(by):
        queue = jobs.listen(by)
        try:
            return set(jobs.needed())
        finally:
            jobs.leave(queue)

    assert key in asyncio.run(needed("a page"))
    assert key not in asyncio.run(needed("another"))
    assert key not in jobs.needed()


def test_a_listener_that_does_not_read_is_sent_away(client):
    jobs = client.app.studio.jobs

    async def overrun():
        queue = jobs.listen()
        for number in range(queue.maxsize + 1):
            jobs._send(number)
        await asyncio.sleep(0)
        jobs.leave(queue)
        return queue.get_nowait(), queue.empty()

    assert asyncio.run(overrun()) == (None, True)


def test_a_worker_that_dies_is_replaced(client, busy):
    os.kill(client.app.studio.jobs.worker.pid, 9)
    job = client.wait(busy["id"])
    assert job["error"] == "the worker process died: killed, or out of memory; try a smaller image"
    image = client.upload(photo())
    assert client.run("upscale", {"image": image["id"]}, model="bicubic")["state"] == "done"


def test_a_full_queue_says_when_to_come_again(idle):
    client = idle(queue=1)  # nothing works on it
    image = client.upload(photo())
    assert client.submit("upscale", {"image": image["id"]}, model="bicubic").status_code == 202
    answer = client.submit("upscale", {"image": image["id"]}, model="bicubic")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert answer.json()["error"] == "1 jobs wait already; try again when one is finished"


def test_a_cancel_that_comes_too_late_takes_nothing_away(client):
    image = client.upload(photo())
    job = client.run("upscale", {"image": image["id"]}, model="bicubic")
    assert client.post(f"/api/jobs/{job['id']}/cancel").json()["state"] == "done"
    assert client.get(f"/api/files/{job['results'][0]['id']}").status_code == 200


def test_a_job_says_who_asked(client):
    image = client.upload(photo())
    body = {"application": "upscale", "inputs": {"image": image["id"]}, "model": "bicubic", "by": "a page"}
    job = client.post("/api/jobs", json=body).json()
    assert client.wait(job["id"])["by"] == "a page"


def test_a_job_that_is_over_is_forgotten_with_its_results(client):
    image = client.upload(photo())
    job = client.run("upscale", {"image": image["id"]}, model="bicubic")
    client.delete(f"/api/jobs/{job['id']}")
    assert client.get(f"/api/jobs/{job['id']}").status_code == 404
    assert client.get(f"/api/files/{job['results'][0]['id']}").status_code == 404


def test_listeners_hear_every_state_and_the_newcomer_what_was(client):
    studio = client.app.studio
    image = client.upload(photo())

    async def listened():
        queue = studio.jobs.listen()
        job = client_job()
        heard = []
        while not heard or heard[-1][1]["state"] not in ("done", "failed"):
            heard.append(await queue.get())
        studio.jobs.leave(queue)
        return job, heard

    def client_job():
        from velatura.studio.forms import Asked, check

        asked = Asked("upscale", {"image": image["id"]}, {"scale": 2}, "bicubic")
        return studio.jobs.submit(asked, check(asked, studio.store, studio.settings))

    job, heard = client.portal.call(listened)
    states = [described["state"] for event, described in heard if event == "job" and described["id"] == job.id]
    assert states[0] == "queued"
    assert states[-1] == "done"
    assert "running" in states


def test_the_stream_begins_with_all_jobs_and_ends_when_the_studio_does(client):
    from velatura.studio.app import _events

    studio = client.app.studio

    async def first_and_last():
        stream = _events(studio.jobs)
        first = await anext(stream)
        studio.jobs.hush()
        return first, [event async for event in stream]

    first, rest = client.portal.call(first_and_last)
    assert first.startswith("event: jobs\ndata: [")
    assert isinstance(json.loads(first.split("data: ", 1)[1]), list)
    assert rest == []
    assert studio.jobs.listeners == 0
