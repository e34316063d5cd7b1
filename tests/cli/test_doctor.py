"""``velatura doctor``."""

import json

import pytest

from velatura.cli import doctor, main


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    return {found["what"]: found for found in json.loads(capsys.readouterr().out)["findings"]}


def test_this_machine_is_well(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--json"]) == 0
    found = findings(capsys)
    assert found["torch"]["state"] == "ok"
    assert "threads" in found["device"]["detail"]
    for name in ("avif", "gif", "png 16 bit", "tiff 16 bit"):
        assert found[name]["detail"] == "read and written"
    assert {"extra heic", "extra studio", "extra ray", "extra community", "extra train"} <= set(found)


def test_table(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor"]) == 0
    text, errors = capsys.readouterr()
    assert not errors
    assert "pillow" in text
    assert text.endswith("All that is needed is here.\n")


@pytest.mark.parametrize(
    ("name", "what"), [("_models", "models"), ("_torch", "torch"), ("_disk", "temporary folder"), ("_device", "device")]
)
def test_what_is_broken_is_said(monkeypatch, capsys: pytest.CaptureFixture[str], name: str, what: str):
    def fail() -> str:
        raise OSError("it is\nbroken")

    monkeypatch.setattr(doctor, name, fail)
    assert main(["doctor", "--json"]) == 1
    assert findings(capsys)[what] == {"what": what, "state": "broken", "detail": "OSError: it is broken"}


def test_missing_decoder(monkeypatch, capsys: pytest.CaptureFixture[str]):
    import velatura.image

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no encoder")

    monkeypatch.setattr(velatura.image, "save_image", refuse)
    assert main(["doctor", "--json"]) == 1
    found = findings(capsys)
    assert found["avif"]["state"] == "broken"
    assert found["models"]["state"] == "ok"


def test_full_disk(monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"total": 9 << 20, "free": 5 << 20}))
    assert main(["doctor", "--json"]) == 1
    assert "5 MiB free" in findings(capsys)["temporary folder"]["detail"]


def test_offline_is_said(monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("VELATURA_OFFLINE", "1")
    main(["doctor", "--json"])
    assert "forbidden" in findings(capsys)["network"]["detail"]
