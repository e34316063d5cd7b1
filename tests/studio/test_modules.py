"""The page's modules that need no page, tested by node where there is one."""

import shutil
import subprocess
from pathlib import Path

import pytest

NODE = shutil.which("node")
TESTS = sorted((Path(__file__).parent / "page").glob("*.test.mjs"))


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_modules_of_the_page():
    assert TESTS
    done = subprocess.run([str(NODE), "--test", *map(str, TESTS)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
