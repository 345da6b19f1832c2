"""The project's files: pinned versions, no traces of a machine, and the way in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="reading TOML needs tomli before Python 3.11")

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("sdk", "kernels", "training", "export")
MAX_LINES = 400
# Folders of the machines on which this is written; put together, so that this file does not hold them.
MACHINE_FOLDERS = tuple(f"/{name}/" for name in ("work", "root"))


def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"])


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, str]:
    lines = [
        line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    ]
    pins = dict(line.split("==", 1) for line in lines if line)
    return {normal(name): version for name, version in pins.items()}


def tracked() -> list[Path]:
    """What is in the repository or about to be."""
    try:
        result = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout")
    paths = [ROOT / name for name in result.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_every_development_dependency_is_pinned() -> None:
    wanted = set()
    extras = project()["optional-dependencies"]
    for requirement in (
        *project()["dependencies"],
        *extras["train"],
        *extras["export"],
        *extras["bench"],
        *extras["dev"],
    ):
        name, _, marker = requirement.partition(";")
        if "python_version <" not in marker:  # constraints are for the development version of Python
            wanted.add(normal(re.match(r"[\w.-]+", name)[0]))
    wanted.discard("edgepin")
    assert sorted(wanted - constraints().keys()) == []
    assert len(wanted) > 15


def test_the_pins_are_exact_and_torch_is_the_one_that_training_was_measured_with() -> None:
    assert constraints()["torch"] == "2.13.0"
    assert all(re.fullmatch(r"[0-9]+(\.[0-9a-z]+)+", version) for version in constraints().values())


def test_the_device_needs_no_training_package() -> None:
    names = {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in project()["dependencies"]}
    assert not names & {"torch", "onnx", "onnxscript", "safetensors", "scipy", "scikit-learn"}


def test_no_file_names_a_folder_of_this_machine() -> None:
    pattern = re.compile(rf"(?<![\w.~-])(?:{'|'.join(map(re.escape, MACHINE_FOLDERS))})")
    assert pattern.search(f"see {MACHINE_FOLDERS[0]}x")
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert found == []


def test_the_readme_and_the_makefile_have_the_way_in() -> None:
    readme, makefile = (ROOT / "README.md").read_text("utf-8"), (ROOT / "Makefile").read_text("utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_is_longer_than_one_concept(room: str) -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in (ROOT / room).rglob("*.py")
    }
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}
