"""Tables, JSON and intervals."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from velatura.catalog import Score
from velatura.errors import InputError
from velatura.metrics import report as reports
from velatura.metrics.report import Column, Interval, Report, bootstrap


@pytest.fixture
def report() -> Report:
    return Report(
        title="Blending",
        protocol="Held-out pairs.",
        data="scenes96",
        count=200,
        columns=[Column("colour error", "levels"), Column("PSNR", "dB", "higher", digits=1)],
        rows={
            "paste": [Interval(9.0, 8.5, 9.5), Interval(20, 19, 21)],
            "gp-gan": [Interval(4.123456789, 4.0, 4.25), Interval(float("inf"), 30, float("inf"))],
        },
        model="gp-gan",
        baseline="paste",
        notes=["It loses on grey images."],
    )


def test_bootstrap_against_scipy():
    values = np.random.default_rng(1).normal(10, 3, 80)
    ours = bootstrap(values, draws=4000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert ours.value == values.mean()
    assert ours.low == pytest.approx(theirs.low, abs=0.05)
    assert ours.high == pytest.approx(theirs.high, abs=0.05)


def test_bootstrap_is_seeded():
    values = np.arange(30.0)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, seed=1)


def test_bootstrap_covers_what_it_says():
    random = np.random.default_rng(0)
    hits = [(found := bootstrap(random.normal(0, 1, 60), draws=300, seed=i)).low <= 0 <= found.high for i in range(300)]
    assert 0.90 <= np.mean(hits) <= 0.98


def test_bootstrap_refuses_nothing_and_bears_infinity():
    with pytest.raises(ValueError, match="one figure per image"):
        bootstrap([])
    assert bootstrap([30.0, float("inf")]).high == float("inf")


def test_table(report: Report):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(reports.table(report))
    text = console.export_text()
    for expected in ("colour error (levels) ↓", "PSNR (dB) ↑", "4.12 [4.00, 4.25]", "200 images", "It loses on grey"):
        assert expected in text


def test_markdown(report: Report):
    lines = reports.markdown(report).splitlines()
    assert lines[0] == "| | colour error (levels) ↓ | PSNR (dB) ↑ |"
    assert lines[3] == "| **gp-gan** | 4.12 [4.00, 4.25] | inf [30.0, inf] |"
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_json(report: Report, tmp_path: Path):
    path = reports.write_json(report, tmp_path / "report.json")
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read["rows"]["gp-gan"][1] == {"value": "inf", "low": 30, "high": "inf"}
    assert read["protocol"] == "Held-out pairs."
    assert read["environment"]["versions"]["numpy"] == np.__version__
    assert read["environment"]["cores"] >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    with pytest.raises(InputError, match="exists"):
        reports.write_json(report, path)
    assert reports.write_json(report, path, overwrite=True) == path
    with pytest.raises(InputError, match="cannot be written"):
        reports.write_json(report, tmp_path / "absent/report.json")


def test_scores_fit_a_card(report: Report):
    scores = [Score(**score) for score in report.scores()]
    assert scores[0].value == 4.12346
    assert scores[0].baseline_value == 9
    assert report.scores()[0]["count"] == 200
    assert len(scores) == 1  # an infinite figure stands on no card
    alone = replace(report, baseline="").scores()
    assert [Score(**score).baseline for score in alone] == [""]
    assert alone[0]["value"] == 4.12346


def test_a_model_is_judged_on_every_kind_of_image():
    rows = {
        f"{name}, {kind}": [Interval(value, value, value)]
        for kind, add in (("centre", 0.0), ("half", 10.0))
        for name, value in (("telea", 20 + add), ("vae", 25 + add), ("vae-brain", 0.0))
    }
    report = Report("", "", "", 3, [Column("PSNR", "dB", "higher")], rows, model="vae", baseline="telea")
    found = {score["metric"]: (score["value"], score["baseline_value"]) for score in report.scores()}
    assert found == {"PSNR, centre": (25, 20), "PSNR, half": (35, 30)}
    assert [line[:10] for line in reports.markdown(report).splitlines() if "**" in line] == ["| **vae, c", "| **vae, h"]


def test_report_refuses_what_does_not_fit(report: Report):
    with pytest.raises(ValueError, match="row 'a' has 1 figures; expected 2"):
        Report("", "", "", 1, report.columns, {"a": [Interval(1, 1, 1)]})
    with pytest.raises(ValueError, match="no row 'best'"):
        Report("", "", "", 1, report.columns, report.rows, model="best")


def test_commit_of_the_packages_own_checkout_only(tmp_path: Path):
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    package, note = tmp_path / "src/velatura/metrics/report.py", tmp_path / "note.txt"
    project = tmp_path / "pyproject.toml"
    package.parent.mkdir(parents=True)
    project.write_text('[project]\nname = "velatura"')
    for file in (package, note):
        file.write_text("old")
    assert reports._commit_of(tmp_path) == "unknown"
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert reports._commit_of(tmp_path) == head
    note.write_text("new")  # changes no figure
    assert reports._commit_of(tmp_path) == head
    package.write_text("new")
    assert reports._commit_of(tmp_path) == f"{head}-dirty"
    project.write_text('[project]\nname = "another"')
    assert reports._commit_of(tmp_path) == "unknown"
