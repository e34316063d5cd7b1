import io
import json
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from studio_help import as_bytes, photo

from velatura.cli import main
from velatura.studio.app import STATIC


def holes(height=40, width=56):
    mask = np.zeros((height, width), np.uint8)
    mask[12:20, 14:26] = 255
    return mask


# --- images -----------------------------------------------------------------------------------------------------------


def test_an_upload_is_described_and_comes_back_as_it_is(client):
    data = as_bytes(photo())
    item = client.upload(data, "boat.png")
    assert (item["name"], item["width"], item["height"], item["bits"], item["alpha"]) == ("boat.png", 56, 40, 8, False)
    assert client.get(f"/api/images/{item['id']}").json() == item
    answer = client.get(f"/api/files/{item['id']}")
    assert answer.content == data
    assert answer.headers["content-disposition"] == 'attachment; filename="boat.png"'


def test_names_never_become_paths(client):
    item = client.upload(photo(), "../../../tmp/evil.png")
    assert item["name"] == "evil.png"
    assert client.get("/api/files/..%2f..%2fetc%2fpasswd").status_code == 404
    assert client.get("/static/..%2fapp.py").status_code == 404
    assert client.get("/static/../app.py").status_code == 404


def test_a_bad_file_gives_the_line_of_the_command(client, capsys, tmp_path, monkeypatch):
    answer = client.post("/api/images", files={"file": ("notes.png", b"not an image at all")})
    assert answer.status_code == 400
    monkeypatch.chdir(tmp_path)
    Path("notes.png").write_bytes(b"not an image at all")
    assert main(["upscale", "notes.png", "--model", "bicubic", "-o", "out.png"]) == 2
    assert capsys.readouterr().err.strip() == f"velatura: error: {answer.json()['error']}"


def test_damage_behind_the_header_is_one_line_too(client):
    item = client.upload(as_bytes(photo(200, 200))[:4000], "cut.png")
    answer = client.get(f"/api/images/{item['id']}/preview")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("cut.png")
    job = client.run("upscale", {"image": item["id"]}, model="bicubic")
    assert job["state"] == "failed"
    assert job["error"].startswith("cut.png")


def test_previews_are_small_and_keep_their_transparency(client):
    wide = client.upload(photo(30, 400), "wide.png")
    answer = client.get(f"/api/images/{wide['id']}/preview", params={"side": "256"})
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (256, 19)
    clear = np.dstack([photo(), holes()])
    item = client.upload(clear, "clear.png")
    answer = client.get(f"/api/images/{item['id']}/preview")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), clear)


def test_a_file_of_16_bits_stays_so_and_is_shown_in_8(client):
    deep = (photo()[..., 0].astype(np.uint16) << 8) + 7
    stream = io.BytesIO()
    Image.fromarray(deep).save(stream, "PNG")
    item = client.upload(stream.getvalue(), "deep.png")
    assert item["bits"] == 16
    job = client.run("upscale", {"image": item["id"]}, model="bicubic", params={"scale": 1})
    assert np.array_equal(client.pixels(job["results"][0]["id"]), deep)
    shown = Image.open(io.BytesIO(client.get(f"/api/images/{item['id']}/preview").content))
    assert shown.mode == "L"


def test_a_mask_painted_on_a_preview_comes_to_the_size_of_the_image(client):
    item = client.upload(photo(80, 112), "large.png")
    mask = client.upload(holes(), "mask.png", mask_for=item["id"])
    assert (mask["width"], mask["height"]) == (112, 80)
    pixels = client.pixels(mask["id"])
    assert pixels[30, 40] == 255
    assert pixels[5, 5] == 0
    answer = client.post(
        "/api/images", files={"file": ("m.png", as_bytes(holes(40, 40)))}, params={"mask_for": item["id"]}
    )
    assert answer.status_code == 400
    assert answer.json()["error"] == "mask is 40x40, the image 112x80; expected the same shape"


def test_other_formats_keep_the_metadata(client):
    exif = Image.Exif()
    exif[0x010E] = "a boat"
    stream = io.BytesIO()
    Image.fromarray(photo()).save(stream, "JPEG", exif=exif)
    item = client.upload(stream.getvalue(), "boat.jpg")
    job = client.run("upscale", {"image": item["id"]}, model="bicubic", params={"scale": 2})
    answer = client.get(f"/api/files/{job['results'][0]['id']}", params={"format": "jpeg", "quality": 80})
    assert answer.headers["content-disposition"] == 'attachment; filename="boat-upscale.jpg"'
    made = Image.open(io.BytesIO(answer.content))
    assert (made.format, made.size, made.getexif()[0x010E]) == ("JPEG", (112, 80), "a boat")


def test_a_cutout_is_turned_with_its_mask(client):
    item, mask = client.upload(photo(), "boat.png"), client.upload(holes(), "mask.png")
    answer = client.post(f"/api/images/{item['id']}/cutout", json={"mask": mask["id"], "degrees": 90})
    turned = client.pixels(answer.json()["id"])
    assert turned.shape == (56, 40, 4)
    assert np.array_equal(turned[..., 3] > 127, np.rot90(holes(), -1) > 127)
    seen = turned[..., 3] == 255
    assert np.array_equal(turned[seen][:, :3], np.rot90(photo(), -1)[seen])


def test_opacity_is_a_mask_and_an_opaque_image_has_none(client):
    item = client.upload(np.dstack([photo(), holes()]), "clear.png")
    mask = client.post(f"/api/images/{item['id']}/opacity").json()
    assert np.array_equal(client.pixels(mask["id"]), holes())
    answer = client.post(f"/api/images/{client.upload(photo())['id']}/opacity")
    assert answer.json() == {"error": "the image has no transparency to cut it out by; paint a mask"}


def test_a_zip_holds_every_image_under_its_own_name(client):
    items = [client.upload(photo(seed=seed), "same.png") for seed in range(2)]
    made = client.post("/api/archives", json={"images": [item["id"] for item in items], "name": "my results"}).json()
    assert made["name"] == "my results.zip"
    with zipfile.ZipFile(io.BytesIO(client.get(f"/api/archives/{made['id']}").content)) as archive:
        assert archive.namelist() == ["same.png", "same-2.png"]
        assert archive.testzip() is None
        assert np.array_equal(np.asarray(Image.open(archive.open("same-2.png"))), photo(seed=1))


def test_a_zip_names_how_many_are_gone(client):
    items = [client.upload(photo(seed=seed))["id"] for seed in range(2)]
    client.delete(f"/api/images/{items[0]}")
    made = client.post("/api/archives", json={"images": items}).json()
    assert (made["images"], made["left_out"]) == (1, 1)
    answer = client.post("/api/archives", json={"images": items[:1]})
    assert answer.status_code == 404
    assert "none of these images is here" in answer.json()["error"]
    assert client.get("/api/archives/unknown").status_code == 404


def test_an_error_of_conversion_names_the_image_and_not_our_file(client):
    item = client.upload(np.zeros((4, 20_000, 3), np.uint8), "wide.png")
    answer = client.get(f"/api/files/{item['id']}?format=webp")
    assert answer.status_code == 400
    assert "wide.png" in answer.json()["error"]
    assert str(client.app.studio.store.folder) not in answer.text
    assert not list(client.app.studio.store.folder.glob("*.part"))


def test_what_was_removed_is_gone(client):
    item = client.upload(photo())
    assert client.delete(f"/api/images/{item['id']}").status_code == 204
    assert client.get(f"/api/files/{item['id']}").status_code == 404


# --- jobs: what is made is what the command makes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("application", "roles", "asked"),
    [
        ("upscale", {"image": "photo.png"}, {"model": "lanczos", "params": {"scale": 1.5, "consistent": True}}),
        (
            "inpaint",
            {"image": "photo.png", "mask": "my mask.png"},
            {"model": "texture", "params": {"seed": 3, "candidates": 2, "disagreement": True}},
        ),
        ("inpaint", {"image": "photo.png"}, {"model": "texture", "params": {"box": "5,6,7,8"}}),
        ("restore", {"photo": "photo.png"}, {"params": {"strength": 0, "scratches": "off", "faces": False}}),
        (
            "blend",
            {"source": "piece.png", "destination": "photo.png", "mask": "piece mask.png"},
            {"params": {"method": "mixed", "at": [-3, 4], "beta": 2}},
        ),
        ("generate", {}, {"params": {"count": 2, "seed": 5}, "model": "vae-faces"}),
    ],
)
def test_the_command_line_repeats_a_job(client, tmp_path, monkeypatch, application, roles, asked):
    files = {
        "photo.png": photo(),
        "my mask.png": holes(),
        "piece.png": photo(20, 24, seed=1),
        "piece mask.png": holes()[10:30, 8:32],
    }
    ids = {role: client.upload(files[name], name)["id"] for role, name in roles.items()}
    job = client.run(application, ids, **asked)
    assert job["state"] == "done", job["error"]
    assert job["seconds"] > 0
    monkeypatch.chdir(tmp_path)
    for name, array in files.items():
        Image.fromarray(array).save(name)
    words = shlex.split(job["command"])
    assert words[:2] == ["velatura", application]
    assert main([*words[1:], "--quiet"]) == 0
    out = Path(words[words.index("-o") + 1])
    made = sorted(out.iterdir()) if out.is_dir() else sorted(set(Path().glob("*.png")) - set(map(Path, files)))
    ours = {result["name"]: result["id"] for result in job["results"] if result["name"].endswith(".png")}
    assert len(ours) == len(made)
    for path, (name, key) in zip(made, sorted(ours.items()), strict=True):
        assert out.is_dir() or path.name == name
        assert np.array_equal(np.asarray(Image.open(path)), client.pixels(key)), path


def test_a_pipeline_and_its_command_line_agree(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo()).save("photo.png")
    Image.fromarray(holes()).save("mask.png")
    image, mask = client.upload(photo(), "photo.png"), client.upload(holes(), "mask.png")
    steps = [
        {"application": "inpaint", "inputs": {"mask": mask["id"]}, "model": "texture"},
        {"application": "upscale", "params": {"scale": 2, "consistent": True}, "model": "bicubic"},
    ]
    job = client.run("pipeline", {"image": image["id"]}, steps=steps)
    assert job["state"] == "done", job["error"]
    assert main([*shlex.split(job["command"])[1:], "--quiet"]) == 0
    assert np.array_equal(np.asarray(Image.open("photo-pipeline.png")), client.pixels(job["results"][0]["id"]))
    assert job["steps"][1]["params"] == {"scale": 2, "consistent": True}


def test_maps_and_candidates_lie_beside_the_result(client):
    image, mask = client.upload(photo()), client.upload(holes())
    asked = {"candidates": 2, "disagreement": True}
    job = client.run("inpaint", {"image": image["id"], "mask": mask["id"]}, model="texture", params=asked)
    assert [result["what"] for result in job["results"]] == ["result", "candidate-2", "disagreement"]
    assert job["results"][2]["name"] == "photo-disagreement.png"


def test_a_draw_is_varied_from_its_latents(client):
    sheet = client.run("generate", params={"count": 3, "seed": 1})
    assert [result["what"] for result in sheet["results"]] == ["draw", "draw", "draw", "latents"]
    latents = sheet["results"][-1]["id"]
    for amount, same in ((0, True), (0.5, False)):
        varied = client.run("generate", {"latents": latents}, params={"count": 1}, vary=[1, amount])
        first = client.pixels(varied["results"][0]["id"])
        assert np.array_equal(first, client.pixels(sheet["results"][1]["id"])) is same


def test_a_job_that_fails_says_why_in_one_line(client):
    image = client.upload(photo())
    job = client.run("inpaint", {"image": image["id"]}, model="texture")
    assert job["state"] == "failed"
    assert "\n" not in job["error"]
    assert "mask" in job["error"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"application": "paint"}, "there is no application 'paint' here"),
        ({"application": "upscale"}, "needs image (the photograph to enlarge); open an image for it"),
        ({"application": "upscale", "inputs": {"image": "nope"}}, "no such image here"),
        ({"application": "upscale", "inputs": {"image": "ID"}, "params": {"scale": 9}}, "option 'scale': got 9"),
        ({"application": "upscale", "inputs": {"image": "ID"}, "params": {"scal": 2}}, "did you mean 'scale'?"),
        ({"application": "upscale", "inputs": {"image": "ID"}, "model": "/etc/passwd"}, "unknown model '/etc/passwd'"),
        ({"application": "upscale", "inputs": {"mask": "ID"}}, "upscale reads no 'mask'"),
        (
            {"application": "stylize", "inputs": {"content": "ID", "style": "ID"}, "params": {"curve": "/tmp/a.svg"}},
            "option 'curve' names a file; it is for the command line alone",
        ),
        (
            {"application": "stylize", "inputs": {"content": "ID", "style": "ID"}, "params": {"also": ["/etc/passwd"]}},
            "option 'also' names a file",
        ),
        ({"application": "generate", "params": {"count": 1000}}, "expected at most 64 on one sheet"),
        ({"application": "imagine", "params": {}}, "expected a text"),
        ({"application": "pipeline", "inputs": {"image": "ID"}}, "a pipeline needs steps"),
        (
            {
                "application": "pipeline",
                "inputs": {"image": "ID"},
                "steps": [{"application": "upscale", "model": "/tmp/x.pth"}],
            },
            "step 1 (upscale): unknown model '/tmp/x.pth'",
        ),
        (
            {
                "application": "pipeline",
                "inputs": {"image": "ID"},
                "steps": [{"application": "upscale", "params": {"model": "/tmp/x.pth"}}],
            },
            "step 1 (upscale): unknown option 'model'",
        ),
        (
            {
                "application": "pipeline",
                "inputs": {"image": "ID"},
                "steps": [{"application": "inpaint", "params": {"mask": "/etc/passwd"}}],
            },
            "step 1 (inpaint): unknown option 'mask'",
        ),
    ],
)
def test_what_is_wrong_is_told_before_it_is_queued(client, asked, message):
    key = client.upload(photo())["id"]
    inputs = {name: key if value == "ID" else value for name, value in asked.get("inputs", {}).items()}
    answer = client.post("/api/jobs", json={**asked, "inputs": inputs})
    assert answer.status_code in (400, 404)
    assert message in answer.json()["error"]


def test_numbers_that_are_none_are_refused(client):
    body = '{"application": "upscale", "params": {"scale": NaN}}'
    answer = client.post("/api/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "finite" in answer.json()["error"]


def test_half_a_character_comes_back_escaped(client):
    body = json.dumps({"application": "\ud800"})
    answer = client.post("/api/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)


def test_results_that_could_not_be_shown_are_refused(idle):
    client = idle(max_megapixels=0.01)
    item = client.upload(photo())
    answer = client.submit("upscale", {"image": item["id"]}, params={"scale": 8})
    assert answer.status_code == 400
    assert "the result would be 448 x 320" in answer.json()["error"]


# --- what the page is made from ---------------------------------------------------------------------------------------


def test_every_application_has_a_form(client):
    found = {one["name"]: one for one in client.get("/api/applications").json()["applications"]}
    assert list(found) == ["inpaint", "restore", "upscale", "stylize", "blend", "generate", "imagine"]
    assert found["upscale"]["params"]["scale"] == {
        "default": 4.0,
        "description": "how many times larger, any number",
        "maximum": 8.0,
        "minimum": 1.0,
        "title": "Scale",
        "type": "number",
    }
    assert found["upscale"]["models"][0] == "srresnet"
    assert found["inpaint"]["models"][:2] == ["auto", "texture"]
    assert found["stylize"]["several"] == ["also"]
    files = {"style_out", "frames", "curve", "features", "also"}
    assert not files & set(found["stylize"]["params"])
    assert [each["mask"] for each in found["inpaint"]["inputs"]] == [False, True]


def test_samples_can_be_opened(client):
    names = [sample["name"] for sample in client.get("/api/samples").json()]
    for name in names:
        opened = client.post(f"/api/samples/{name}").json()
        for item in opened["images"].values():
            assert client.get(f"/api/images/{item['id']}/preview").status_code == 200
    assert client.post("/api/samples/nothing").status_code == 404


def test_models_are_shown_with_their_terms(client):
    cards = {card["name"]: card for card in client.get("/api/models").json()}
    assert cards["srresnet"]["images"][0]["terms"]


def test_the_page_is_small_and_loads_nothing_from_elsewhere(client):
    page = client.get("/").text
    assert "Velatura" in page
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), path
        assert "innerHTML" not in text, path


def test_docs_are_ours(client):
    assert client.get("/docs").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/jobs", "/api/images", "/api/events"} <= set(paths)
