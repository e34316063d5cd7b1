import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from data_folder import crop, make_data_folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    return make_data_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """Forty photographs of a user's, of which two are held out."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(40):
        (folder / f"{seed:02d}.png").write_bytes(crop(seed))
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real data folder, for the tests marked `training`."""
    shared = Path(os.environ.get("VELATURA_SHARED", Path(__file__).parents[3] / "shared"))
    if not (shared / "data").is_dir():
        pytest.skip(f"no training data in {shared}: name the folder in VELATURA_SHARED")
    return shared / "data"
