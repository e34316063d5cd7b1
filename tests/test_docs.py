"""What the docs print is what the code and the measurements say."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


def test_tables_are_fresh():
    done = subprocess.run([sys.executable, ROOT / "docs/tables.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_stale_table_is_named(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("")
    page = tmp_path / "docs/index.md"
    page.write_text("<!-- table: models -->\nold\n<!-- end -->\n")
    script = tmp_path / "docs/tables.py"
    script.write_text((ROOT / "docs/tables.py").read_text())
    assert subprocess.run([sys.executable, script, "--check"], capture_output=True).returncode == 1
    assert "old" in page.read_text()
    assert subprocess.run([sys.executable, script], capture_output=True).returncode == 0
    assert "| Model |" in page.read_text()
    assert subprocess.run([sys.executable, script, "--check"], capture_output=True).returncode == 0


def test_what_nobody_measured_is_said_to_be_unknown(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!-- table: scores none -->\n<!-- end -->\n")
    page = tmp_path / "docs/index.md"
    page.write_text("<!-- table: benchmark none-speed -->\n<!-- end -->\n")
    script = tmp_path / "docs/tables.py"
    script.write_text((ROOT / "docs/tables.py").read_text())
    assert subprocess.run([sys.executable, script], capture_output=True).returncode == 0
    assert page.read_text().splitlines()[1] == "*Not measured yet.*"
    assert (tmp_path / "README.md").read_text().splitlines()[1] == "*Not measured yet.*"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_example_of_contributing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"<!-- tested: soften -->\n```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    (tmp_path / "soften_example.py").write_text(code[1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    from soften_example import soften

    photo = np.concatenate([astronaut()] * 2)[:, :200]
    whole = gaussian_filter(photo / 255, (3, 3, 0), truncate=4) * 255
    assert np.abs(soften(photo, sigma=3).image - whole).max() < 0.51
