"""What lies on the device's own disk: stores, keys, engines. Whoever can write there must not be believed."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from random import Random

import numpy as np

from edgepin import KeyFile, MemoryKey, Store
from edgepin._bundle.signing import SigningKey
from edgepin._guard.guard import Guard
from edgepin._runtime.engine_cache import EngineCache, EngineKey
from edgepin._store.passphrase import Argon2Cost, _new, _parse
from edgepin._store.template import Template, pack_template, unpack_template

from .bytes_mutations import damage, damage_text, mixed
from .structure_mutations import damage_json, damage_sqlite
from .target import Target, expect, folder, in_file

KEY, DIGEST = MemoryKey(bytes(range(32))), "ab" * 32
_SEAL = MemoryKey(b"k" * 32)
_AUDITOR = SigningKey.generate()
PEOPLE = {"a": 1, "b": 2, "Zoë": 1}
CONSENT = "form 7"


def template(subject: str) -> Template:
    """Rows that are the subject's own."""
    captures = PEOPLE.get(subject, 1)
    rows = (
        np.random.default_rng(list(subject.encode())).standard_normal((2, captures, 256)).astype(np.float32)
    )
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    return Template(rows[0], rows[1])


# --- Stores. A case is the store's files: a line of JSON with names and lengths, and then their bytes.


def _packed(files: dict[str, bytes]) -> bytes:
    head = json.dumps({name: len(data) for name, data in files.items()}).encode()
    return head + b"\n" + b"".join(files.values())


def _unpacked(data: bytes) -> dict[str, bytes]:
    head, _, rest = data.partition(b"\n")
    files, at = {}, 0
    try:
        lengths = dict(json.loads(head))
    except (ValueError, TypeError, RecursionError):
        lengths, rest = {"s.db": len(data)}, data
    for name, length in lengths.items():
        if (
            isinstance(length, int)
            and 0 <= length <= len(rest)
            and "/" not in name
            and "\0" not in name
            and name.startswith("s.db")
        ):
            files[name] = rest[at : at + length]
            at += length
    return files


@functools.lru_cache(maxsize=1)
def _stores() -> list[bytes]:
    """One that was closed, after somebody was erased, and one whose process was killed: with its log."""
    made = []
    for closed in (True, False):
        place = folder() / f"seed-{closed}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        store = Store.open(place / "s.db", KEY, DIGEST)
        for subject in ("a", "b", "erased"):
            store.put(subject, {"face": template(subject)}, consent=CONSENT if subject == "a" else None)
        store.delete("erased")
        store.put("b", {"face": template("b")}, replace=True)
        store.put("Zoë", {"face": template("Zoë")})  # still in the log where the store was not closed
        if closed:
            store.close()
        made.append(
            _packed(
                {
                    path.name: path.read_bytes()
                    for path in sorted(place.iterdir())
                    if not path.name.endswith("-shm")
                }
            )
        )
        store.close()
    return made


_damage_page = damage_sqlite(1024)


def _damage_store(random: Random, data: bytes) -> bytes:
    files = _unpacked(data)
    if not files:
        return damage(random, data)
    name = random.choice(sorted(files)) if random.random() < 0.5 else min(files)
    if name.endswith(".db"):
        files[name] = (damage if random.random() < 0.2 else _damage_page)(random, files[name])
    elif random.random() < 0.1:
        del files[name]
    else:
        files[name] = random.choice((damage, damage_text, damage_json))(random, files[name])
    return _packed(files)


def _store(data: bytes) -> None:
    """What opens is what was put in, whoever is asked for; a damaged log may lose its own end, and nothing else."""
    place = folder() / "store"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    files = _unpacked(data)
    for name, content in files.items():
        (place / name).write_bytes(content)
        (place / name).chmod(0o600)
    if "s.db" not in files:
        return
    with Store.open(place / "s.db", KEY, DIGEST, must_exist=True, timeout=0.1) as store:
        # A log that is cut short or damaged is taken up to its last whole commit (sqlite.org/walformat.html), so
        # the store is as it was after one of the steps by which it was made.
        for subject in store.subjects():
            expect(subject in (*PEOPLE, "erased"), f"there is somebody else: {subject!r}")
            found = store.get(subject)
            expect(found is not None and found.keys() == {"face"}, "a subject without a face")
            assert found is not None
            expect(np.array_equal(found["face"].identity, template(subject).identity), "another template")
            expect(np.array_equal(found["face"].pin, template(subject).pin), "another template")
            consent = store.consent(subject)
            text = None if consent is None else consent.text
            expect(text == (CONSENT if subject == "a" else None), "another consent")
        if not any(name.endswith("-wal") for name in files):
            expect(store.subjects() in (sorted(PEOPLE), ["a", "b"]), "somebody is missing, or back again")
        store.put("new", {"voice": template("new")})
        expect("new" in store.subjects(), "what was put in is not there")


def _template(data: bytes) -> None:
    """Only bytes that a key has opened come here, so any error but a wrong answer will do."""
    try:
        read = unpack_template(data)
    except Exception:
        return
    expect(read.identity.shape == read.pin.shape and read.identity.shape[1] == 256, "another shape")


def _key_file(data: bytes) -> None:
    expect(len(KeyFile(in_file("store.key", data), create=False).key()) == 32, "a key of another length")


# --- Guards: counters, earlier samples, audit


@functools.lru_cache(maxsize=1)
def _guards() -> list[bytes]:
    place = folder() / "guard-seed"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    with Guard.open(place / "s.db.guard", _SEAL.key(), signing_key=_AUDITOR) as guard:
        guard.begin("a", "door 1").reject(["below_threshold"])
        guard.begin("a", "door 2").accept(["accepted"], {"llr": 3.5})
        guard.begin("b")
        guard.enrolled("a", [bytes([i]) * 33 for i in range(3)], {"faces": 3})
    return [(place / "s.db.guard").read_bytes()]


def _guard(data: bytes) -> None:
    """A guard that opens has forgotten no failure, and its audit is the one that was written."""
    place = folder() / "guard"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    path = in_file("guard/s.db.guard", data)
    with Guard.open(path, _SEAL.key(), signing_key=_AUDITOR, must_exist=True, timeout=0.1) as guard:
        expect(guard.status("b").failures_everywhere == 1, "a failure is forgotten")
        expect(len(guard.remembered("a")) == 3, "an earlier sample is forgotten")
        guard.begin("b").reject(["below_threshold"])
        expect(guard.status("b").failures_everywhere == 2, "a failure is not counted")
        guard.audit.verify()


def _passphrase_file(data: bytes) -> None:
    """What `PassphraseFile` reads before it derives anything, which takes as long as the file says within limits."""
    salt, cost, _ = _parse(Path("passphrase.key"), data)
    expect(len(salt) == 16 and cost.memory_kib <= 4 << 20, "a cost beyond the limits")


# --- Engines

_ENGINE = EngineKey("a" * 64, "voice", "int8", "Orin", "sm_87", "tensorrt", "10.3.0", "b" * 64)


def _cache() -> EngineCache:
    return EngineCache(folder() / "engines", _SEAL)


@functools.lru_cache(maxsize=1)
def _engines() -> list[bytes]:
    cache = _cache()
    made = [cache.put(_ENGINE, bytes(range(256)) * 8, {"layers": ["a"]}).read_bytes()]
    other = dataclasses.replace(_ENGINE, version="10.4.0")
    return [*made, cache.put(other, b"engine", {}).read_bytes()]


def _engine(data: bytes) -> None:
    """Nothing but what was sealed here comes out."""
    path = _cache().folder / _ENGINE.file_name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    found = _cache().get(_ENGINE)
    expect(data in _engines() and found.key == _ENGINE, "an altered engine would be run")


def _engine_key(data: bytes) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    read = EngineKey.from_json(value)
    expect(EngineKey.from_json(read.to_json()) == read and "/" not in read.file_name, "it does not come back")


TARGETS = (
    Target("store", "`Store.open`, reading and writing, on damaged files; what comes out is what was put in", _stores,
           _damage_store, _store, share=0.3),
    Target("template", "`unpack_template`", lambda: [pack_template("face", template(subject)) for subject in PEOPLE], damage,
           _template, share=4.0),
    Target("key-file", "`KeyFile`", lambda: [bytes(range(32)).hex().encode() + b"\n"],
           mixed(damage_text, damage), _key_file, share=2.0),
    Target("guard", "`Guard.open`, counting and the audit, on damaged files; nothing is forgotten", _guards,
           mixed(_damage_page, damage), _guard, share=0.3),
    Target("passphrase-file", "what `PassphraseFile` reads", lambda: [_new(b"x", Argon2Cost(64, 1, 1))], damage_json,
           _passphrase_file, share=2.0),
    Target("engine", "`EngineCache.get`; nothing altered comes out", _engines, damage, _engine, share=2.0),
    Target("engine-key", "`EngineKey.from_json`", lambda: [_ENGINE.to_bytes()], damage_json, _engine_key, share=4.0),
)  # fmt: skip
