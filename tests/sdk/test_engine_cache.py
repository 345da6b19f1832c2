"""Only what this device sealed, and only what fits it, comes out of the engine cache."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgepin import _canonical_json
from edgepin._errors import EnvironmentFault, IntegrityError, UsageError
from edgepin._runtime import engine_cache as _engine_cache
from edgepin._runtime.engine_cache import REBUILD, EngineCache, EngineKey, default_folder, default_key_path
from edgepin._store.keys import MemoryKey

KEY = EngineKey(
    model="a" * 64,
    form="voice",
    precision="int8",
    gpu="Orin (nvgpu)",
    capability="sm_87",
    flavor="tensorrt",
    version="10.3.0",
    settings="b" * 64,
)
ENGINE, REPORT = bytes(range(256)) * 8, {"counts": {"kernels": 12}, "layers": ["a", "b"]}
PLACE = {"gpu": "Orin", "version": "10.3.0"}


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines", MemoryKey(b"k" * 32))


@pytest.fixture
def file(cache):
    return cache.put(KEY, ENGINE, REPORT)


def test_what_was_put_comes_out(cache, file):
    found = cache.get(KEY)
    assert (found.key, found.engine, found.report) == (KEY, ENGINE, REPORT)


def test_without_settings_the_engine_that_is_there_comes_out_however_it_was_built(cache, file):
    assert cache.get(dataclasses.replace(KEY, settings="")).key.settings == KEY.settings


def test_folder_and_files_are_their_owners_alone(cache, file):
    cache.put_timings(PLACE, b"timings")
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.folder.iterdir()} == {0o600}


def test_the_devices_own_key_is_made_on_first_use_and_lies_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path / "home"))
    EngineCache().put(KEY, ENGINE, REPORT)
    assert EngineCache().get(KEY).engine == ENGINE
    assert stat.S_IMODE(default_key_path().stat().st_mode) == 0o600
    assert default_folder() not in default_key_path().parents
    default_key_path().unlink()
    with pytest.raises(EnvironmentFault, match="no key") as refusal:
        EngineCache().get(KEY)
    assert refusal.value.hint == REBUILD
    assert not default_key_path().exists()  # a new key would vouch for nothing that is there


def test_a_key_file_without_a_key_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path / "home"))
    EngineCache().put(KEY, ENGINE, REPORT)
    default_key_path().write_bytes(b"something else")
    for call in (lambda: EngineCache().get(KEY), lambda: EngineCache().put(KEY, ENGINE, REPORT)):
        with pytest.raises(IntegrityError, match="does not hold a key") as refusal:
            call()
        assert "remove it" in refusal.value.hint


def test_looking_makes_neither_folder_nor_key(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path / "home"))
    with pytest.raises(EnvironmentFault, match="there is no int8 engine of voice"):
        EngineCache().get(KEY)
    assert list(tmp_path.iterdir()) == []


# --- altered ----------------------------------------------------------------------------------------------------------


def test_a_thousand_changes_and_truncations_are_each_refused(cache, file):
    whole, random_ = file.read_bytes(), random.Random(1)
    # Every byte before the engine and every byte of the seal, and random ones in between.
    beginning = len(whole) - len(ENGINE) - 32
    places = [*range(beginning), *range(len(whole) - 32, len(whole))]
    places += [random_.randrange(len(whole)) for _ in range(max(0, 800 - len(places)))]
    variants = [
        whole[:place] + bytes([whole[place] ^ random_.randrange(1, 256)]) + whole[place + 1 :]
        for place in places
    ]
    variants += [whole[: random_.randrange(len(whole))] for _ in range(200)]
    variants += [b"", whole + b"\0", whole + whole, whole[1:]]
    assert len(variants) >= 1000
    for variant in variants:
        file.write_bytes(variant)
        with pytest.raises(IntegrityError) as refusal:
            cache.get(KEY)
        assert refusal.value.hint == REBUILD
    file.write_bytes(whole)
    assert cache.get(KEY).engine == ENGINE


def test_nothing_is_parsed_before_the_seal_is_right(cache, file, monkeypatch):
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    monkeypatch.setattr(_canonical_json, "decode", lambda data: pytest.fail("parsed"))
    with pytest.raises(IntegrityError, match="seal"):
        cache.get(KEY)


def test_an_engine_of_another_device_is_refused(cache, file):
    other = EngineCache(cache.folder, MemoryKey(b"l" * 32))
    with pytest.raises(IntegrityError, match="altered, or comes from another device"):
        other.get(KEY)


def test_the_seal_is_not_made_with_the_key_itself(cache, file):
    import hmac

    whole = file.read_bytes()
    assert hmac.digest(b"k" * 32, whole[:-32], "sha256") != whole[-32:]


def test_a_file_in_the_place_of_another_is_refused_for_what_it_is(cache, file):
    face = dataclasses.replace(KEY, form="face")
    shutil.copy(file, cache.folder / face.file_name)
    with pytest.raises(EnvironmentFault, match="it is of voice, not of face"):
        cache.get(face)
    cache.put_timings(PLACE, b"timings")
    timings = next(cache.folder.glob("*.timings"))
    shutil.copy(timings, file)
    with pytest.raises(IntegrityError, match="not as an engine"):
        cache.get(KEY)


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")]
)
def test_what_is_no_file_is_refused_without_reading_it(cache, make):
    cache.folder.mkdir()
    make(cache.folder / KEY.file_name)
    with pytest.raises(IntegrityError, match="not a file"):
        cache.get(KEY)


# --- stale and foreign ------------------------------------------------------------------------------------------------

DIFFERENCES = {
    "model": ("c" * 64, "built from another model"),
    "precision": ("fp16", "its precision is int8, not fp16"),
    "gpu": ("Thor", r"built on Orin \(nvgpu\), and here is Thor"),
    "capability": ("sm_110", "built for sm_87, not for sm_110"),
    "flavor": ("tensorrt-rtx", "built by tensorrt, not by tensorrt-rtx"),
    "version": ("10.16.2", r"built by tensorrt 10\.3\.0, and here is 10\.16\.2"),
    "settings": ("d" * 64, "built with other settings"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_does_not_fit_is_refused_by_name_of_what_differs(cache, file, name):
    value, says = DIFFERENCES[name]
    with pytest.raises(EnvironmentFault, match=says) as refusal:
        cache.get(dataclasses.replace(KEY, **{name: value}))
    assert refusal.value.hint == "edgepin compile B.pin"
    others = [text for other, (_, text) in DIFFERENCES.items() if other != name]
    assert not any(text in str(refusal.value) for text in others)


def test_the_nearest_engine_is_the_one_that_is_compared(cache, file):
    cache.put(
        dataclasses.replace(KEY, model="c" * 64, form="face", gpu="Thor", capability="sm_110"), ENGINE, REPORT
    )
    with pytest.raises(EnvironmentFault, match="here is Xavier") as refusal:
        cache.get(dataclasses.replace(KEY, gpu="Xavier"))
    assert "face" not in str(refusal.value)


def test_an_altered_neighbor_is_not_quoted(cache, file):
    file.write_bytes(file.read_bytes().replace(b"sm_87", b"sm_78"))
    with pytest.raises(EnvironmentFault) as refusal:
        cache.get(dataclasses.replace(KEY, gpu="Thor"))
    assert "sm_78" not in str(refusal.value)


def test_a_new_engine_takes_the_place_of_a_stale_one(cache, file):
    fresh = dataclasses.replace(KEY, version="10.16.2", settings="d" * 64)
    assert cache.put(fresh, b"new", {}) == file
    assert cache.get(fresh).engine == b"new"
    with pytest.raises(EnvironmentFault):
        cache.get(KEY)


@pytest.mark.parametrize("name", ["model", "form", "precision", "gpu", "capability", "flavor"])
def test_engines_for_different_things_do_not_replace_each_other(name):
    value = {**{name: value for name, (value, _) in DIFFERENCES.items()}, "form": "face"}[name]
    assert dataclasses.replace(KEY, **{name: value}).file_name != KEY.file_name


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_crash_while_writing_leaves_the_old_engine(cache, file, monkeypatch):
    def crash(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(EnvironmentFault, match="No space left"):
        cache.put(KEY, b"new", {})
    assert cache.get(KEY).engine == ENGINE
    assert [path.name for path in cache.folder.iterdir()] == [file.name]


def test_a_reader_sees_whole_engines_while_another_process_writes(cache, file):
    code = (
        "import sys; from edgepin._runtime.engine_cache import *; from edgepin._store.keys import MemoryKey\n"
        f"cache, key = EngineCache(sys.argv[1], MemoryKey(b'k' * 32)), {KEY!r}\n"
        "for size in range(1, 60): cache.put(key, bytes(size) * 5000, {'size': size})"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(cache.folder)]) as writer:
        while writer.poll() is None:
            found = cache.get(KEY)
            assert found.report == REPORT or len(found.engine) == 5000 * found.report["size"]
    assert writer.returncode == 0
    assert cache.get(KEY).report == {"size": 59}


@pytest.mark.parametrize(
    ("limit", "what"),
    [("MAX_ENGINE_BYTES", "engine"), ("MAX_REPORT_BYTES", "report"), ("_MAX_HEADER_BYTES", "header")],
)
def test_sizes_are_capped_when_writing_and_when_reading(cache, file, monkeypatch, limit, what):
    monkeypatch.setattr(_engine_cache, limit, 10)
    with pytest.raises(EnvironmentFault, match=f"the {what} has"):
        cache.put(KEY, ENGINE, REPORT)
    with pytest.raises(IntegrityError, match=r"impossible sizes|too large"):
        cache.get(KEY)


@pytest.mark.parametrize(
    ("key", "engine", "report"),
    [
        (dataclasses.replace(KEY, settings=""), ENGINE, REPORT),
        (KEY, b"", REPORT),
        (KEY, ENGINE, {"x": float("nan")}),
    ],
)
def test_what_is_no_engine_is_not_kept(cache, key, engine, report):
    with pytest.raises(UsageError):
        cache.put(key, engine, report)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    cache = EngineCache(tmp_path / "file" / "engines", MemoryKey(b"k" * 32))
    for call in (lambda: cache.put(KEY, ENGINE, REPORT), lambda: cache.lock().__enter__()):
        with pytest.raises(EnvironmentFault, match="cannot make the folder"):
            call()


def test_one_builder_waits_for_the_other_and_says_so(cache):
    order, waiting = [], threading.Event()

    def second():
        with cache.lock(waiting.set):
            order.append("second")

    with cache.lock():
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(5)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


# --- timings ----------------------------------------------------------------------------------------------------------


def test_timings_are_sealed_too(cache):
    assert cache.get_timings(PLACE) is None
    cache.put_timings(PLACE, b"timings")
    assert cache.get_timings(PLACE) == b"timings"
    assert cache.get_timings({**PLACE, "version": "10.16.2"}) is None
    path = next(cache.folder.glob("*.timings"))
    path.write_bytes(path.read_bytes().replace(b"timings", b"tamings"))
    with pytest.raises(IntegrityError):
        cache.get_timings(PLACE)
    cache.put_timings(PLACE, b"anew")
    assert cache.get_timings(PLACE) == b"anew"


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_read_back():
    assert EngineKey.from_json(_canonical_json.decode(KEY.to_bytes())) == KEY


@pytest.mark.parametrize("value", [None, [], {}, {**KEY.to_json(), "x": ""}, {**KEY.to_json(), "gpu": 1}])
def test_what_is_no_key_is_refused(value):
    with pytest.raises(UsageError):
        EngineKey.from_json(value)


@pytest.mark.parametrize(
    "change",
    [
        {"form": "../face"},
        {"form": ""},
        {"precision": "int8/"},
        {"capability": "8.7 "},
        {"model": "a" * 63},
        {"settings": "B" * 64},
        {"version": ""},
        {"gpu": "a\nb"},
        {"gpu": "x" * 257},
    ],
)
def test_a_key_that_cannot_be_is_refused(change):
    with pytest.raises(UsageError):
        dataclasses.replace(KEY, **change)
