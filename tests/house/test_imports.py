"""Who may import whom, and what `import edgepin` costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "edgepin_kernels": ROOT / "kernels" / "edgepin_kernels",
    "edgepin": ROOT / "sdk" / "edgepin",
    "edgepin_training": ROOT / "training" / "edgepin_training",
    "edgepin_export": ROOT / "export" / "edgepin_export",
}
MAY_IMPORT = {
    "edgepin_kernels": set(),
    "edgepin": {"edgepin_kernels"},
    "edgepin_training": {"edgepin", "edgepin_kernels"},
    "edgepin_export": {"edgepin", "edgepin_kernels", "edgepin_training"},
}
OUTSIDE = {"benchmarks", "tests", "conftest", "pytest", "hypothesis"}
# What a device may lack, or what would slow its start: imported where it is used.
HEAVY = (
    "torch", "onnx", "onnxruntime", "scipy", "sklearn", "cv2", "cryptography", "PIL", "soundfile", "sounddevice", "soxr", "click",
    "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "pycuda", "cuda",
)  # fmt: skip


def imported(tree: ast.AST, *, at_top: bool = False) -> Iterator[str]:
    """The first names of all absolute imports; with `at_top`, of those that run with the module."""
    for node in _running(tree) if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _running(node)


def modules(room: str) -> list[tuple[Path, ast.Module]]:
    found = [(path, ast.parse(path.read_text("utf-8"))) for path in sorted(ROOMS[room].rglob("*.py"))]
    assert found
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_package_imports_only_those_below_it(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path, tree in modules(room)
        for name in imported(tree)
        if (name in ROOMS and name not in allowed) or name in OUTSIDE
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_relative_import_leaves_its_package(room: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path, tree in modules(room)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > len(path.relative_to(ROOMS[room]).parts)
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ["edgepin", "edgepin_kernels"])
def test_device_modules_import_heavy_packages_where_they_use_them(room: str) -> None:
    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path, tree in modules(room)
        for name in imported(tree, at_top=True)
        if name in HEAVY and not (name == "click" and path.parent.name == "_cli")
    ]
    assert wrong == []


def test_importing_edgepin_loads_numpy_and_nothing_heavy() -> None:
    code = f"import sys, edgepin; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    paths = os.pathsep.join([str(ROOT / "sdk"), str(ROOT / "kernels")])
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")
