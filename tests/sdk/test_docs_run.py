"""The Python of the pages for users runs as it stands, in a folder with what the page supposes to be there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from edgepin import Bundle, KeyFile, SiteCalibration, Store, Verifier
from edgepin._bundle.signing import SigningKey
from edgepin._decision.fusion import Fusion
from edgepin._starter import PEOPLE

from .conftest import Pins
from .synthetic_captures import voice, write_face, write_voice

DOCS = Path(__file__).resolve().parents[2] / "docs"
ADA, EVE = 1, 2


def captures(folder: Path, pins: Pins, patch: pytest.MonkeyPatch) -> None:
    """A bundle, and captures of two people by the names that the pages use."""
    (folder / "site.pin").write_bytes(pins.site.read_bytes())
    names = ("ada-1", "ada-2", "ada-3", "now", "try-1", "try-2", "later")
    for number, name in enumerate(names):
        write_face(folder / f"{name}.png", ADA, number)
        write_voice(folder / f"{name}.wav", voice(ADA, number))


def enrolled(folder: Path, pins: Pins, patch: pytest.MonkeyPatch) -> None:
    """The same, and ada enrolled under the key `store.key`."""
    captures(folder, pins, patch)
    with (
        Verifier.open("site.pin", "enrollments.db", key=KeyFile("store.key")) as verifier,
        verifier.enroll("badge-0042", consent="form 7, 2026-11-23") as session,
    ):
        session.add_face("ada-1.png", cropped=True)
        session.add_voice("ada-1.wav")


def old_key(folder: Path, pins: Pins, patch: pytest.MonkeyPatch) -> None:
    with Store.open("enrollments.db", KeyFile("old.key"), "0" * 64):
        pass


def calibrated(folder: Path, pins: Pins, patch: pytest.MonkeyPatch) -> None:
    captures(folder, pins, patch)
    bundle = Bundle.open("site.pin")
    SiteCalibration.of(bundle, Fusion.from_json(bundle.manifest.fusion)).write(
        "site.cal", SigningKey.load_or_create()
    )


def served(folder: Path, pins: Pins, patch: pytest.MonkeyPatch) -> None:
    """The command on the path, and what it opens named by the environment."""
    enrolled(folder, pins, patch)
    for variable, name in (
        ("EDGEPIN_BUNDLE", "site.pin"),
        ("EDGEPIN_STORE", "enrollments.db"),
        ("EDGEPIN_KEY_FILE", "store.key"),
        ("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
    ):
        patch.setenv(variable, name)


def nothing(folder: Path, pins: Pins, patch: pytest.MonkeyPatch) -> None:
    pass


def oneself(folder: Path, pins: Pins, patch: pytest.MonkeyPatch) -> None:
    """A person's captures, and a bundle of one's own."""
    for name, number in (("ada-1", 0), ("now", 3)):
        for kind, suffix in (("faces", ".jpg"), ("voices", ".ogg")):
            path = PEOPLE / kind / "person-10000" / f"{number:02}{suffix}"
            if suffix == ".jpg":
                (folder / f"{name}.jpg").write_bytes(path.read_bytes())
            else:
                soundfile.write(folder / f"{name}.wav", *soundfile.read(path, dtype="int16"))
    (folder / "site.pin").write_bytes(pins.site.read_bytes())


PAGES: dict[str, Callable[[Path, Pins, pytest.MonkeyPatch], None]] = {
    "audit.md": nothing,
    "calibrate.md": calibrated,
    "erase.md": enrolled,
    "integrate.md": captures,
    "keys.md": old_key,
    "lockout.md": nothing,
    "log-mel.md": nothing,
    "loop.md": served,
    "quickstart.md": oneself,
}


def python_of(page: str) -> list[str]:
    text = (DOCS / page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(
    page: str,
    tmp_path: Path,
    device: Path,
    pins: Pins,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = python_of(page)
    assert blocks
    monkeypatch.setenv("EDGEPIN_HOME", str(device))
    monkeypatch.chdir(tmp_path)
    PAGES[page](tmp_path, pins, monkeypatch)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"docs/{page}, block {number}", "exec"), names)


ELSEWHERE = {
    "cuda-log-mel.md": "needs a GPU",
    "data.md": "needs a data set of the user's",
    "foreign-encoders.md": "needs encoders of the user's",
    "learnable-pins.md": "needs an encoder of the user's",
    "live.md": "needs a camera and a microphone",
    "tensorrt-plugin.md": "needs a GPU and TensorRT",
}


@pytest.mark.parametrize("page", ELSEWHERE)
def test_the_python_of_a_page_that_cannot_run_here_compiles(page: str) -> None:
    for number, block in enumerate(python_of(page), start=1):
        compile(block, f"docs/{page}, block {number}", "exec")


def test_every_page_with_python_runs_or_says_why_not() -> None:
    pages = {path.name for path in DOCS.glob("*.md") if "```python\n" in path.read_text("utf-8")}
    assert pages <= PAGES.keys() | ELSEWHERE.keys()
