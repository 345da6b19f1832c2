"""Engines that this device built, kept sealed: nothing that another hand has touched reaches a deserializer.

A TensorRT engine is executable code for one GPU and one TensorRT, so a cached one must be both the right one and our
own. Each is a file under a key of all that it was built for and from, sealed with HMAC-SHA256 under a key of this
device. `get` reads a file once, checks the seal over those bytes, and only then looks at what they say.

    magic (16) | lengths of header, report and engine (4, 4, 8; big-endian) | header | report | engine | HMAC (32)

Header and report are canonical JSON. There is one engine for each model, form, precision, GPU and flavor of TensorRT:
building it anew, with another TensorRT or other settings, replaces it. Timing caches are kept in the same way,
because TensorRT parses them too. Deleting the folder loses nothing but the time to build.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import hmac
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import _canonical_json
from .._errors import EdgePinError, EnvironmentFault, IntegrityError, UsageError
from .._paths import cache_dir, config_dir
from .._safe_files import write_atomic
from .._store.keys import KeyFile, KeyProvider

REBUILD = "edgepin compile B.pin"
"""The command that builds what is missing, stale, foreign or altered; every refusal here ends with it."""

MAX_ENGINE_BYTES = 1 << 30
MAX_REPORT_BYTES = 16 << 20
_MAX_HEADER_BYTES = 1 << 14
_MAGIC = b"EdgePIN engine\0\1"
_LENGTHS = struct.Struct(">16sIIQ")
_SEAL_BYTES = 32
_MAX_NEIGHBORS = 64  # files looked at to say what differs

_DIGEST = re.compile("[0-9a-f]{64}")
_WORD = re.compile(r"[a-z0-9][a-z0-9_.]{0,63}")


@dataclasses.dataclass(frozen=True)
class EngineKey:
    """What an engine was built from and for. Raises `UsageError` on a value that cannot be."""

    model: str
    """SHA-256, in hex, of the ONNX model."""
    form: str
    """`face`, `voice` or `voice.portable`."""
    precision: str
    """`fp32`, `fp16` or `int8`."""
    gpu: str
    """The GPU as its driver calls it; empty for an engine built for any GPU of a compute capability."""
    capability: str
    """The compute capability, such as `sm_87`."""
    flavor: str
    """`tensorrt` or `tensorrt-rtx`: the two do not read each other's engines."""
    version: str
    """The version of that TensorRT, in full."""
    settings: str = ""
    """`BuildSettings.digest`. In `get`, empty stands for whatever settings the engine was built with."""

    def __post_init__(self) -> None:
        for name in ("form", "precision", "capability"):
            if not _WORD.fullmatch(getattr(self, name)):
                raise UsageError(f"an engine's {name} cannot be {getattr(self, name)!r:.80}")
        if not _DIGEST.fullmatch(self.model) or (self.settings and not _DIGEST.fullmatch(self.settings)):
            raise UsageError("an engine's model and settings are named by their SHA-256 in hex")
        for name in ("gpu", "flavor", "version"):
            text = getattr(self, name)
            if len(text) > 256 or not (text.isprintable() and (text or name == "gpu")):
                raise UsageError(f"an engine's {name} cannot be {text!r:.80}")

    def to_json(self) -> dict[str, str]:
        """Plain values, under the fields' names."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: object) -> EngineKey:
        """The inverse of `to_json`. Raises `UsageError` on anything else."""
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(value, Mapping) or set(value) != names:
            raise UsageError("this is not the key of an engine")
        if not all(isinstance(text, str) for text in value.values()):
            raise UsageError("the key of an engine holds text only")
        return cls(**value)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return _canonical_json.encode(self.to_json())

    def differences(self, wanted: EngineKey) -> list[str]:
        """What of this (an engine's) key is not as `wanted`, each in words; empty if the engine will do."""
        texts = {
            "model": "it was built from another model",
            "form": f"it is of {self.form}, not of {wanted.form}",
            "precision": f"its precision is {self.precision}, not {wanted.precision}",
            "gpu": f"it was built on {self.gpu or 'no GPU'}, and here is {wanted.gpu or 'no GPU'}",
            "capability": f"it was built for {self.capability}, not for {wanted.capability}",
            "flavor": f"it was built by {self.flavor}, not by {wanted.flavor}",
            "version": f"it was built by {self.flavor} {self.version}, and here is {wanted.version}",
            "settings": "it was built with other settings",
        }
        differing = [name for name in texts if getattr(self, name) != getattr(wanted, name)]
        if "flavor" in differing and "version" in differing:
            differing.remove("version")  # the versions of two products do not compare
        return [texts[name] for name in differing if name != "settings" or wanted.settings]

    @property
    def file_name(self) -> str:
        """The place in the cache: for each model, form, precision, GPU and flavor there is one."""
        names = ("model", "form", "precision", "gpu", "capability", "flavor")
        place = _canonical_json.encode({name: getattr(self, name) for name in names})
        return f"{self.form}.{self.precision}.{hashlib.sha256(place).hexdigest()[:24]}.engine"


@dataclasses.dataclass(frozen=True)
class CachedEngine:
    """An engine that this device sealed, and its report. `engine` may be deserialized."""

    key: EngineKey
    engine: bytes = dataclasses.field(repr=False)
    report: dict[str, Any] = dataclasses.field(repr=False)


class EngineCache:
    """The sealed engines of this device. Several processes may use one folder at once.

    Args:
        folder: where they are; by default `engines` in the user's cache folder. Made, for its owner alone, with the
            first engine.
        key: what gives the key of the seal; by default this device's `engines.key`, made with the first engine.

    Raises:
        EnvironmentFault, IntegrityError: the key file cannot be used.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, key: KeyProvider | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()
        self._provider = key
        self._seal_key: bytes | None = None

    def put(self, key: EngineKey, engine: bytes, report: Mapping[str, Any]) -> Path:
        """Seals an engine and keeps it in the place of an earlier one; returns the file.

        Raises:
            UsageError: the key names no settings, or there is no engine.
            EnvironmentFault: the engine or its report is too large, or the place cannot be written.
        """
        if not key.settings or not engine:
            raise UsageError("an engine is kept with the settings that it was built with, and has bytes")
        return self._write(key.file_name, key.to_json(), engine, report)

    def get(self, key: EngineKey) -> CachedEngine:
        """The engine for exactly `key`; with empty `settings`, the one for all else of it.

        Raises:
            IntegrityError: the file is altered, cut short, or not this device's. Nothing of it was used.
            EnvironmentFault: there is no engine, or it is stale or foreign; says what differs.
        """
        path = self.folder / key.file_name
        try:
            header, report, engine = self._read(path)
        except FileNotFoundError:
            raise self._absent(key) from None
        try:
            found = EngineKey.from_json(header)
        except UsageError:
            raise _altered(path, "it is sealed, and not as an engine") from None
        differences = found.differences(key)
        if differences:
            raise EnvironmentFault(
                f"the {key.precision} engine of {key.form} does not fit: {'; '.join(differences)}",
                hint=REBUILD,
            )
        return CachedEngine(found, engine, report)

    def put_timings(self, name: Mapping[str, str], timings: bytes) -> None:
        """Keeps a timing cache under the GPU and TensorRT that it is of (any text; the same for `get_timings`)."""
        self._write(_timings_file(name), dict(name), timings, {})

    def get_timings(self, name: Mapping[str, str]) -> bytes | None:
        """The timing cache of this name, or None. Raises `IntegrityError` if it was altered."""
        try:
            header, _, timings = self._read(self.folder / _timings_file(name))
        except FileNotFoundError:
            return None
        return timings if header == dict(name) else None

    @contextmanager
    def lock(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Held while building: two builders at once would measure each other, and may not fit into memory.

        `waiting` is called if another process holds it, before this one waits.
        """
        self._make_folder()
        try:
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EnvironmentFault(
                f"cannot use the folder of engines {self.folder}: {error.strerror}", hint="give --cache DIR"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _absent(self, key: EngineKey) -> EnvironmentFault:
        """There is no file for `key`: says what differs in the one that comes nearest."""
        nearest: list[str] | None = None
        for path in sorted(self.folder.glob("*.engine"))[:_MAX_NEIGHBORS]:
            try:
                other = EngineKey.from_json(self._read(path)[0])
            except (FileNotFoundError, EdgePinError):
                continue  # what it says of itself is worth nothing
            if other.model != key.model and (other.form, other.precision) != (key.form, key.precision):
                continue  # another encoder's, which explains nothing
            differences = other.differences(key)
            if nearest is None or len(differences) < len(nearest):
                nearest = differences
        message = f"there is no {key.precision} engine of {key.form} for this model on this machine"
        if nearest:
            message += f"; the nearest that is here does not fit: {'; '.join(nearest)}"
        return EnvironmentFault(message, hint=REBUILD)

    def _write(self, name: str, header: Mapping[str, Any], body: bytes, report: Mapping[str, Any]) -> Path:
        try:
            head, tail = _canonical_json.encode(dict(header)), _canonical_json.encode(dict(report))
        except ValueError as error:
            raise UsageError(f"an engine's report must be JSON: {error}") from None
        for what, size, limit in (
            ("engine", len(body), MAX_ENGINE_BYTES),
            ("report", len(tail), MAX_REPORT_BYTES),
            ("header", len(head), _MAX_HEADER_BYTES),
        ):
            if size > limit:
                raise EnvironmentFault(f"the {what} has {size} bytes, and the cache takes {limit} at most")
        pieces = [_LENGTHS.pack(_MAGIC, len(head), len(tail), len(body)), head, tail, body]
        self._make_folder()
        path = self.folder / name
        write_atomic(path, [*pieces, self._seal(pieces, create=True)], mode=0o600)
        return path

    def _read(self, path: Path) -> tuple[Any, dict[str, Any], bytes]:
        """Header, report and body of a file, once its seal is found right. Raises `FileNotFoundError` without one."""
        data = _read_file(path)
        if len(data) < _LENGTHS.size + _SEAL_BYTES or data[: len(_MAGIC)] != _MAGIC:
            raise _altered(path, "it does not begin or end like one")
        _, head, tail, body = _LENGTHS.unpack_from(data)
        if head > _MAX_HEADER_BYTES or tail > MAX_REPORT_BYTES or body > MAX_ENGINE_BYTES:
            raise _altered(path, "it gives impossible sizes")
        if len(data) != _LENGTHS.size + head + tail + body + _SEAL_BYTES:
            raise _altered(path, "it is longer or shorter than it says")
        view = memoryview(data)
        if not hmac.compare_digest(self._seal([view[:-_SEAL_BYTES]], create=False), data[-_SEAL_BYTES:]):
            raise _altered(
                path, "its seal is not this device's; it was altered, or comes from another device"
            )
        first, second = _LENGTHS.size + head, _LENGTHS.size + head + tail
        try:
            return (
                _canonical_json.decode(data[_LENGTHS.size : first]),
                _canonical_json.decode(data[first:second]),
                data[second:-_SEAL_BYTES],
            )
        except ValueError:  # sealed by us, so this is a bug or another version's file
            raise _altered(path, "it is of another version of EdgePIN") from None

    def _seal(self, pieces: list[Any], *, create: bool) -> bytes:
        if self._seal_key is None:
            try:
                provider = self._provider or KeyFile(default_key_path(), create=create)
            except IntegrityError as error:
                raise IntegrityError(
                    str(error), hint=f"remove it; `{REBUILD}` makes a new one and builds the engines anew"
                ) from error
            except EnvironmentFault:
                if create or default_key_path().exists():
                    raise
                raise EnvironmentFault(
                    f"there are engines and no key {default_key_path()} that could vouch for them",
                    hint=REBUILD,
                ) from None
            # Not the key itself, which may lock other things too.
            self._seal_key = hmac.digest(provider.key(), b"edgepin engine cache 1", "sha256")
        seal = hmac.new(self._seal_key, digestmod="sha256")
        for piece in pieces:
            seal.update(piece)
        return seal.digest()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(
                f"cannot make the folder of engines {self.folder}: {error.strerror}", hint="give --cache DIR"
            ) from error


def default_folder() -> Path:
    """Where engines are kept, without a folder given."""
    return cache_dir() / "engines"


def default_key_path() -> Path:
    """The key that seals this device's engines. It is not in the cache folder, which may be copied about."""
    return config_dir() / "engines.key"


def _timings_file(name: Mapping[str, str]) -> str:
    return f"{hashlib.sha256(_canonical_json.encode(dict(name))).hexdigest()[:24]}.timings"


def _read_file(path: Path) -> bytes:
    limit = _LENGTHS.size + _MAX_HEADER_BYTES + MAX_REPORT_BYTES + MAX_ENGINE_BYTES + _SEAL_BYTES
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                raise _altered(path, "it is too large, or not a file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(status.st_size + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EnvironmentFault(
            f"cannot read the engine {path}: {error.strerror}", hint="check that this user may read it"
        ) from error


def _altered(path: Path, how: str) -> IntegrityError:
    return IntegrityError(f"the engine file {path} is refused: {how}", hint=REBUILD)
