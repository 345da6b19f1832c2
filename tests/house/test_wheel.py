"""What a wheel holds: everything that the packages read when they run, and nothing else.

scikit-build-core takes what lies in the packages' folders and no `.gitignore` names, whether git tracks it or not. So a
file that works in a checkout may be missing in a wheel, and a file that was left lying about may be in it.
"""

from __future__ import annotations

import io
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgepin import _starter

from .test_project import ROOMS, ROOT, tomllib, tracked

MAX_WHEEL_BYTES = 8_000_000
BUILT_BYTES = 300_000
"""For what is not in the checkout: the compiled log-mel and the metadata, zipped. They were 180,000."""
MAX_FILE_BYTES = 200_000
"""But for the starter bundle."""
SUFFIXES = {
    "edgepin": {".digest", ".jpg", ".json", ".ogg", ".pin", ".py", ".typed"},
    "edgepin_kernels": {".cu", ".cuh", ".h", ".py", ".pyi", ".typed"},
    "edgepin_training": {".py", ".toml"},
    "edgepin_export": {".py"},
}


def settings() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["scikit-build"])


def ignored(paths: list[Path]) -> set[Path]:
    """Those that a `.gitignore` names, tracked or not."""
    try:
        result = subprocess.run(
            ["git", "check-ignore", "--no-index", "--stdin", "-z"],
            cwd=ROOT,
            capture_output=True,
            input="\0".join(str(path.relative_to(ROOT)) for path in paths).encode(),
        )
    except OSError:
        pytest.skip("git is not here")
    if result.returncode not in (0, 1):  # 1: none of them
        pytest.skip("this is not a git checkout")
    return {ROOT / name for name in result.stdout.decode().split("\0") if name}


@pytest.fixture(scope="module")
def wheel() -> Mapping[str, Path]:
    """By the name in the wheel."""
    found = {}
    for package in settings()["wheel"]["packages"]:
        paths = [path for path in (ROOT / package).rglob("*") if path.is_file()]
        for path in set(paths) - ignored(paths):
            found[str(path.relative_to((ROOT / package).parent))] = path
    return found


def test_the_packages_are_the_rooms_and_no_setting_changes_what_is_taken() -> None:
    found = settings()
    assert sorted(package.split("/")[0] for package in found["wheel"]["packages"]) == sorted(ROOMS)
    assert [package.split("/")[1] for package in found["wheel"]["packages"]] == list(SUFFIXES)
    assert found["wheel"].keys() == {"packages"}
    assert not {"sdist", "generate", "overrides"} & found.keys()


def test_it_is_what_the_builder_itself_takes(
    wheel: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = pytest.importorskip(
        "scikit_build_core.build._pathutil", reason="scikit-build-core is not installed"
    )
    monkeypatch.chdir(ROOT)
    found = builder.packages_to_file_mapping(
        packages={Path(package).name: package for package in settings()["wheel"]["packages"]},
        platlib_dir=Path("wheel"),
        include=[],
        src_exclude=[],
        target_exclude=[],
        build_dir=settings()["build-dir"],
        mode="default",
    )
    assert {str(Path(name).relative_to("wheel")) for name in found.values()} == set(wheel)


def test_the_starter_is_in_it_with_its_digest_its_people_and_their_calibration(
    wheel: Mapping[str, Path],
) -> None:
    people = [path for path in _starter.PEOPLE.rglob("*") if path.is_file()]
    assert len(people) >= 100
    assert {path.suffix for path in people} == {".jpg", ".ogg"}
    needed = {_starter.BUNDLE, _starter.DIGEST, _starter.CALIBRATION, *people}
    assert {str(path.relative_to(_starter.FOLDER.parents[1])) for path in needed} - wheel.keys() == set()


def test_every_file_of_the_packages_that_git_tracks_is_in_it(wheel: Mapping[str, Path]) -> None:
    packages = [ROOT / package for package in settings()["wheel"]["packages"]]
    of_packages = {path for path in tracked() if any(package in path.parents for package in packages)}
    assert len(of_packages) > 250
    assert of_packages - set(wheel.values()) == set()


def test_nothing_that_no_package_reads_is_in_it(wheel: Mapping[str, Path]) -> None:
    odd = [name for name in wheel if Path(name).suffix not in SUFFIXES[name.split("/")[0]]]
    assert odd == []
    parts = {part for name in wheel for part in name.split("/")}
    assert not parts & {"tests", "benchmarks", "docs", "build", "runs", "__pycache__"}
    assert [part for part in parts if part.startswith("test_") or part == "conftest.py"] == []


def test_no_file_is_large_but_the_starter_and_the_wheel_stays_within_8_megabytes(
    wheel: Mapping[str, Path],
) -> None:
    large = [name for name, path in wheel.items() if path.stat().st_size > MAX_FILE_BYTES]
    assert large == ["edgepin/_starter/starter.pin"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in wheel.items():
            archive.write(path, name)
    assert len(packed.getvalue()) + BUILT_BYTES <= MAX_WHEEL_BYTES
