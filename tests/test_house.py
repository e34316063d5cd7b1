"""The rules of the house, read from the source: who may import whom, what a column needs, what a file may hold.

Every rule is a function from a folder to a list of complaints, so that each is also seen failing on a folder that
breaks it.
"""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import velatura
from velatura import catalog

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "velatura"

# A floor, and the floors that it may use beside itself. `cli` and `studio` stand on top and may use all.
_GROUND = {"errors", "tiling", "device", "image", "task", "schema", "catalog", "placement"}
_MATHEMATICS = {"nets", "ops", "losses", "latent_search", "faces", "holes", "semantic", "completion", "restoration"}
_MATHEMATICS |= {"stylization", "face_refinement", "hidden"}
MAY_USE = {
    "errors": set(),
    "tiling": {"errors"},
    "device": {"errors"},
    "image": {"errors"},
    "task": {"errors", "tiling", "device", "image"},
    "schema": {"errors", "task"},
    "catalog": {"errors"},
    "community": {"catalog", "errors", "nets"},
    "onnx_export": {"catalog", "community", "errors", "nets"},
    "openvino_engine": {"device", "errors"},
    "samples": {"ops"},
    "ops": {"errors", "tiling"},
    "nets": {"errors", "ops", "tiling"},
    "losses": {"errors", "ops", "nets"},
    "latent_search": {"errors", "nets", "losses"},
    "holes": {"errors", "image"},
    "hidden": {"image", "ops"},
    "semantic": {"catalog", "errors", "latent_search", "nets", "ops"},
    "perceptual": {"catalog", "errors", "nets"},
    "stylization": {"catalog", "errors", "losses", "nets", "perceptual"},
    "completion": {"errors", "faces", "holes", "image", "ops"},
    "face_refinement": {"catalog", "device", "errors", "faces", "nets", "ops"},
    "restoration": {"catalog", "device", "errors", "nets", "ops", "tiling"},
    "metrics": {"errors", "losses", "nets"},
    "placement": {"errors", "image", "ops"},
    "faces": _GROUND | {"nets", "ops"},
    "training": {"catalog", "errors", "faces", "losses", "metrics", "nets", "ops", "perceptual", "restoration"},
    "tasks": _GROUND | _MATHEMATICS | {"community", "openvino_engine"},
    "medical": {"errors", "task", "tasks"},
    "pipeline": _GROUND | _MATHEMATICS | {"tasks"},
    "storage": {"catalog", "errors"},
    "manifest": {"errors", "storage"},
    "engines": {"device", "errors", "manifest", "storage", "task", "tiling"},
    "batch": {"catalog", "engines", "errors", "image", "manifest", "storage", "task"},
}
ON_TOP = {"cli", "studio", "__main__"}

# Mathematics knows no files, no devices and no logging.
PURE = ("nets", "ops")
IMPURE_MODULES = {"PIL", "io", "logging", "os", "pathlib", "rich", "safetensors", "shutil", "tempfile", "tifffile"}
IMPURE_CALLS = {"open", "print"}
IMPURE_OF_TORCH = {"cuda", "device", "load", "save"}

# These must stay quick to import.
WITHOUT_TORCH = (
    *("image", "tiling", "task", "catalog", "batch", "ops", "placement", "openvino_engine"),
    *("faces", "hidden", "holes", "completion", "medical"),
    *("storage", "manifest", "engines"),
)

# What an application has under its basename, beside tasks/X.py.
COLUMN = (
    "src/velatura/cli/{}.py",
    "tests/tasks/test_{}.py",
    "docs/{}.md",
    "examples/{}.py",
    "benchmarks/{}.py",
)

LARGEST_FILE = 16 << 20


def modules(source: Path) -> Iterator[tuple[str, Path, ast.Module]]:
    """Give floor, path and syntax tree of every module."""
    for path in sorted(source.rglob("*.py")):
        yield path.relative_to(source).parts[0].removesuffix(".py"), path, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Give the dotted name and line of everything imported, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


# --- the rules --------------------------------------------------------------------------------------------------------


def wrong_directions(source: Path) -> list[str]:
    """Find imports that go up, or sideways between floors that do not know each other."""
    complaints = []
    for floor, path, tree in modules(source):
        if floor in ON_TOP or floor == "__init__":
            continue
        if floor not in MAY_USE:
            complaints.append(f"{path.relative_to(source)}: a new floor; say in this test what it may use")
            continue
        for name, line in imported(tree):
            package, _, rest = name.partition(".")
            used = rest.split(".")[0]
            if package == "velatura" and used not in {floor, "__version__", *MAY_USE[floor]}:
                complaints.append(f"{path.relative_to(source)}:{line}: {floor} may not use {name}")
    return complaints


def impurities(source: Path) -> list[str]:
    """Find files, devices and logging in the mathematics."""
    complaints = []
    for floor, path, tree in modules(source):
        if floor not in PURE:
            continue
        where = path.relative_to(source)
        complaints += [
            f"{where}:{line}: imports {name}" for name, line in imported(tree) if name.split(".")[0] in IMPURE_MODULES
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                complaints.append(f"{where}:{node.lineno}: calls {node.func.id}()")
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "torch"
                and node.attr in IMPURE_OF_TORCH
            ):
                complaints.append(f"{where}:{node.lineno}: uses torch.{node.attr}")
    return complaints


def loose_imports(source: Path) -> list[str]:
    """Find relative imports and star imports."""
    complaints = []
    for _, path, tree in modules(source):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.level or any(alias.name == "*" for alias in node.names)):
                complaints.append(f"{path.relative_to(source)}:{node.lineno}: relative or star import")
    return complaints


def undeclared_names(source: Path) -> list[str]:
    """Find modules that do not say what is public, or say it of names that they lack."""
    complaints = []
    for _, path, tree in modules(source):
        declared, defined = None, set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__all__" for target in node.targets):
                declared = ast.literal_eval(node.value)
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                defined |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
        where = path.relative_to(source)
        if declared is None and path.name not in ("__init__.py", "__main__.py"):
            complaints.append(f"{where}: no __all__")
        if missing := set(declared or ()) - defined:
            complaints.append(f"{where}: __all__ names {', '.join(sorted(missing))}, which it lacks")
    return complaints


def missing_of_columns(root: Path, trained: set[str]) -> list[str]:
    """Find what an application lacks on some floor; ``trained`` are those that a model serves."""
    complaints = []
    for task in sorted((root / "src/velatura/tasks").glob("[a-z]*.py")):
        wanted = [place.format(task.stem) for place in COLUMN]
        if task.stem in trained:
            wanted.append(f"src/velatura/training/recipes/{task.stem}.py")
        complaints += [f"{task.stem}: no {place}" for place in wanted if not (root / place).is_file()]
    return complaints


def large_files(source: Path) -> list[str]:
    """Find files that are too large for the package."""
    return [
        f"{path.relative_to(source)}: {path.stat().st_size >> 20} MiB"
        for path in sorted(source.rglob("*"))
        if path.is_file() and path.stat().st_size > LARGEST_FILE
    ]


# --- the house keeps them ---------------------------------------------------------------------------------------------


def trained_tasks() -> set[str]:
    return {card.task for card in catalog.cards()}


def test_imports_go_one_way():
    assert wrong_directions(SOURCE) == []


def test_mathematics_knows_no_files_devices_or_logging():
    assert impurities(SOURCE) == []


def test_imports_are_absolute_and_named():
    assert loose_imports(SOURCE) == []


def test_every_module_says_what_is_public():
    assert undeclared_names(SOURCE) == []


def test_columns_are_complete():
    assert missing_of_columns(ROOT, trained_tasks()) == []


def test_files_are_small():
    assert large_files(SOURCE) == []


def test_every_weight_has_its_card():
    assert catalog.verify() == []


def loads(module: str, *unwanted: str) -> list[str]:
    """Name those of ``unwanted`` that importing ``module`` in a fresh interpreter brings along."""
    code = f"import sys, {module}; print(*[name for name in {unwanted!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def test_import_velatura_is_light():
    assert loads("velatura", "torch", "numpy", "pydantic", "PIL", "scipy", "cyclopts") == []


@pytest.mark.parametrize("floor", WITHOUT_TORCH)
def test_floor_loads_no_torch(floor: str):
    names = [f"velatura.{floor}"]
    if (SOURCE / floor).is_dir():
        names += [f"velatura.{floor}.{path.stem}" for path in sorted((SOURCE / floor).glob("[a-z]*.py"))]
    assert loads(", ".join(names), "torch") == []


# --- the public names -------------------------------------------------------------------------------------------------


def test_public_names_are_complete():
    assert velatura.__all__ == sorted(velatura.__all__)
    assert set(velatura.__all__) == {*velatura._HOMES, "__version__"}
    assert dir(velatura) == velatura.__all__
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    typed = {name.split(".")[-1] for name, _ in imported(tree) if name.startswith("velatura.")}
    assert typed == set(velatura._HOMES), "what type checkers see under TYPE_CHECKING"


@pytest.mark.parametrize("name", [name for name in velatura.__all__ if name != "__version__"])
def test_public_name_is_there(name: str):
    value = getattr(velatura, name)
    home = importlib.import_module(velatura._HOMES[name])
    assert value is getattr(home, name)
    assert name in home.__all__
    assert value.__doc__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        velatura.paint  # noqa: B018


# --- each rule is seen failing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (wrong_directions, "tasks/blend.py", "def f():\n    from velatura.training.data import Images"),
        (wrong_directions, "tasks/blend.py", "import velatura.cli.common"),
        (wrong_directions, "ops/poisson.py", "from velatura.nets import dcgan"),
        (wrong_directions, "metrics/fidelity.py", "from velatura import image"),
        (wrong_directions, "training/loop.py", "from velatura.tasks.blend import Blend"),
        (wrong_directions, "image/png.py", "from velatura import blend"),
        (wrong_directions, "attic.py", ""),
        (impurities, "ops/poisson.py", "from pathlib import Path"),
        (impurities, "ops/poisson.py", "def f():\n    import logging"),
        (impurities, "nets/dcgan.py", "import torch\nx = torch.load('a')"),
        (impurities, "nets/dcgan.py", "import torch\nx = torch.cuda.is_available()"),
        (impurities, "nets/dcgan.py", "def f():\n    print('loss')"),
        (loose_imports, "ops/poisson.py", "from .pyramid import halve"),
        (loose_imports, "ops/poisson.py", "from numpy import *"),
        (undeclared_names, "ops/poisson.py", "def solve(): pass"),
        (undeclared_names, "ops/poisson.py", "__all__ = ['solve']"),
    ],
)
def test_rule_can_fail(tmp_path: Path, rule, path: str, text: str):
    assert rule(tmp_path) == []
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    assert len(rule(tmp_path)) == 1


def test_column_rule_can_fail(tmp_path: Path):
    places = [*(place.format("paint") for place in COLUMN), "src/velatura/training/recipes/paint.py"]
    for place in ("src/velatura/tasks/__init__.py", "src/velatura/tasks/paint.py", *places):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    for place in places:
        assert missing_of_columns(tmp_path, {"paint"}) == []
        (tmp_path / place).unlink()
        assert missing_of_columns(tmp_path, {"paint"}) == [f"paint: no {place}"]
        (tmp_path / place).touch()
    (tmp_path / places[-1]).unlink()
    assert missing_of_columns(tmp_path, set()) == []  # an application without a net needs no recipe


def test_size_rule_can_fail(tmp_path: Path):
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    assert large_files(tmp_path) == ["large.bin: 16 MiB"]


def test_loads_sees_what_is_loaded():
    assert loads("velatura.ops, torch", "torch") == ["torch"]
