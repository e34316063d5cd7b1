import pytest
from studio_help import photo

HOME = "http://127.0.0.1:7860"


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "LOCALHOST:7860"])
def test_our_own_names_are_let_in(idle, host):
    assert idle().get("/api/samples", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:7860", "127.0.0.1:80", "127.0.0.1", "127.0.0.1.evil.example:7860", "", "192.168.0.1:7860"]
)
def test_other_names_are_not(idle, host):
    answer = idle().get("/", headers={"host": host})
    assert answer.status_code == 403
    assert "is not this studio" in answer.json()["error"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8000", "http://localhost:7860"])
def test_pages_of_other_sites_are_not_let_in(idle, origin):
    answer = idle().post("/api/jobs", json={"application": "upscale"}, headers={"origin": origin})
    assert answer.status_code == 403
    assert answer.json() == {"error": "another site's page may not use this studio"}


def test_our_own_page_is_let_in(idle):
    headers = {"origin": HOME, "sec-fetch-site": "same-origin"}
    assert idle().post("/api/samples/coffee", headers=headers).status_code == 201


def test_images_are_not_shown_on_other_sites(idle):
    client = idle()
    key = client.upload(photo())["id"]
    answer = client.get(f"/api/files/{key}", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403


def test_every_answer_has_its_headers(idle):
    client = idle()
    for path in ("/", "/api/samples", "/static/main.js", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_a_large_body_is_refused_before_it_is_read(idle):
    client = idle(upload_megabytes=0.01)
    answer = client.post("/api/images", files={"file": ("a.png", b"0" * 20_000)})
    assert answer.status_code == 413
    assert answer.json()["error"] == "larger than 0.01 MiB; start the studio with a larger --upload"


def test_a_large_body_that_does_not_say_so_is_cut_off(idle):
    client = idle(upload_megabytes=0.01)

    def parts():
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(30):
            yield b"0" * 1000
        yield b"\r\n--x--\r\n"

    answer = client.post("/api/images", content=parts(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413


def test_an_image_of_too_many_pixels_is_refused(idle):
    answer = idle(max_megapixels=0.001).post("/api/images", files={"file": ("a.png", as_png())})
    assert answer.status_code == 413
    assert "a.png" in answer.json()["error"]


def as_png():
    from studio_help import as_bytes

    return as_bytes(photo())


def test_another_address_needs_its_token(idle):
    client = idle(host="0.0.0.0")
    token = client.app.studio.settings.token
    assert len(token) >= 32
    assert client.get("/").status_code == 401
    assert client.get("/", params={"token": "wrong"}).status_code == 401
    assert client.get("/api/jobs", headers={"authorization": f"Bearer {token}x"}).status_code == 401
    assert client.get("/api/jobs", headers={"authorization": f"Bearer {token}"}).status_code == 200
    # The link that is printed leads to a page whose address does not hold the token.
    answer = client.get("/", params={"token": token}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert client.get("/api/jobs").status_code == 200


def test_another_address_is_known_by_number_not_by_any_name(idle):
    client = idle(host="0.0.0.0", token="secret")
    headers = {"authorization": "Bearer secret"}
    assert client.get("/api/jobs", headers={**headers, "host": "192.168.0.7:7860"}).status_code == 200
    assert client.get("/api/jobs", headers={**headers, "host": "evil.example:7860"}).status_code == 403
