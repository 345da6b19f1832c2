"""The index file: whole or refused, and stale when the captures are others than those it describes."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepin._capture.faces import FaceSpec
from edgepin._errors import EdgePinError, IntegrityError, UsageError
from edgepin_training.data.index import Index, read_index, write_index
from edgepin_training.data.lazy import open_corpus

from .voxceleb import VIDEOS, put, sound

VIDEO = f"wav/id10001/{VIDEOS[1]}0"


@pytest.mark.parametrize("name", ["index.jsonl", "index.jsonl.gz"])
def test_what_is_read_is_what_was_written_and_the_bytes_repeat(
    index: Index, tmp_path: Path, name: str
) -> None:
    write_index(index, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert read_index(tmp_path / name) == index
    write_index(index, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    assert (first[:2] == b"\x1f\x8b") == name.endswith("gz")


def _add(vox: Path) -> None:
    put(vox / VIDEO / "00009.wav", sound(9))


def _remove(vox: Path) -> None:
    (vox / VIDEO / "00001.wav").unlink()


def _rename(vox: Path) -> None:
    (vox / VIDEO / "00001.wav").rename(vox / VIDEO / "00003.wav")


def _person(vox: Path) -> None:
    put(vox / "wav" / "id10099" / "v" / "00001.wav", sound(9))


def _gone(vox: Path) -> None:
    vox.rename(vox.with_name("elsewhere"))


@pytest.mark.parametrize("change", [_add, _remove, _rename, _person])
def test_a_changed_folder_makes_the_index_stale_on_opening(
    vox: Path, index: Index, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    write_index(index, tmp_path / "i")
    change(vox)
    with pytest.raises(IntegrityError, match="stale") as raised:
        read_index(tmp_path / "i")
    assert f"edgepin index {vox}" in (raised.value.hint or "")
    assert read_index(tmp_path / "i", check=False) == index


def test_a_data_set_that_is_not_there_is_told(vox: Path, index: Index, tmp_path: Path) -> None:
    write_index(index, tmp_path / "i")
    _gone(vox)
    with pytest.raises(IntegrityError, match="not there"):
        read_index(tmp_path / "i")


@pytest.mark.parametrize("keep", ["size", "time"])
def test_a_rewritten_file_is_noticed_when_it_is_read(vox: Path, index: Index, keep: str) -> None:
    corpus = open_corpus(index, FaceSpec())
    path = vox / VIDEO / "00001.wav"
    before = path.stat()
    if keep == "size":
        path.write_bytes(sound(12345))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    else:
        path.write_bytes(sound(12345, 0.7))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    which = corpus.voices.tracks.index(f"{VIDEOS[1]}0")
    with pytest.raises(IntegrityError, match="was changed") as raised:
        corpus.voices.items[which]
    assert str(path) in str(raised.value)
    path.unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        corpus.voices.items[which]


def _head(change: dict[str, Any]) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [json.dumps(json.loads(lines[0]) | change).encode() + b"\n", *lines[1:]]


def _row(change: dict[str, Any]) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [*lines[:2], json.dumps(json.loads(lines[2]) | change).encode() + b"\n", *lines[3:]]


DAMAGE: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "empty": (lambda lines: [], "line 1"),
    "another file": (lambda lines: [b'{"a": 1}\n'], "is not an index"),
    "another version": (_head({"version": 2}), "version 2"),
    "no root": (_head({"root": None}), "wrong or missing"),
    "places of something else": (_head({"places": {"face": []}}), "wrong or missing"),
    "a report of another form": (_head({"report": {"broken": {"empty": 3}}}), "wrong or missing"),
    "the last line is missing": (lambda lines: lines[:-1], "cut short"),
    "the last line is cut": (lambda lines: [*lines[:-1], lines[-1][:-9]], "damaged or cut short"),
    "only the first line": (lambda lines: lines[:1], "line 2"),
    "a folder above the root": (_row({"folder": "../../etc"}), "line 3"),
    "an absolute folder": (_row({"folder": "/etc"}), "line 3"),
    "a name with a folder": (
        _row({"names": ["../x.wav"], "sizes": [1], "mtimes_ns": [1], "details": [None]}),
        "line 3",
    ),
    "columns of different lengths": (_row({"sizes": [1]}), "line 3"),
    "eyes that are none": (_row({"modality": "face", "details": [[1.0, 2.0], None, None]}), "line 3"),
    "an unknown split": (_row({"split": "test"}), "line 3"),
    "an unknown key": (_row({"more": 1}), "line 3"),
    "deep brackets": (lambda lines: [*lines[:2], b"[" * 100000, *lines[3:]], "line 3"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_refused_with_its_place(index: Index, tmp_path: Path, damage: str) -> None:
    write_index(index, tmp_path / "i")
    change, message = DAMAGE[damage]
    (tmp_path / "i").write_bytes(b"".join(change((tmp_path / "i").read_bytes().splitlines(keepends=True))))
    with pytest.raises(IntegrityError, match=message) as raised:
        read_index(tmp_path / "i", check=False)
    assert str(tmp_path / "i") in str(raised.value)


def test_a_packed_index_that_is_cut_or_not_packed_is_refused(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "i.gz"
    write_index(index, path)
    data = path.read_bytes()
    for other in (
        data[: len(data) // 2],
        data[:-4],
        b"plain",
        gzip.compress(b"{}"),
        data[:100] + b"\0" * 50 + data[150:],
    ):
        path.write_bytes(other)
        with pytest.raises(IntegrityError):
            read_index(path, check=False)


def test_no_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_index(tmp_path / "none")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_a_changed_byte_is_an_index_or_an_integrity_error(
    index: Index, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "i"
    write_index(index, path)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw))
    with contextlib.suppress(EdgePinError):
        open_corpus(read_index(path, check=False), FaceSpec())
