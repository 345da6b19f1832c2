"""Which of a bundle's precisions is the fastest on this device: measured once, kept, and read from then on.

Only precisions that are in the bundle come into question, and those passed the export's accuracy gates. Lower precision is
not faster by nature, and which one is depends on the bundle, the backend and the device: so these are the key.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgepin_kernels import LogMelSpec

from .. import _canonical_json
from .._bundle.manifest import PRECISIONS
from .._errors import EdgePinError
from .._paths import cache_dir
from .._safe_files import write_atomic
from .runtime import PcmRuntime, Runtime

ROUNDS = 7
MAX_SECONDS = 0.2
"""No round begins after this; opening a bundle must not take long, even where encoders are slow."""
ADVANTAGE = 0.95
"""A lower precision is taken if it needs at most this much of the time of the best higher one: less is noise."""
VOICE_SECONDS = 3.0
_MAX_FILE_BYTES = 16 << 10
_SCHEMA = 1


@dataclass(frozen=True)
class MeasuredFor:
    """What a measurement holds for."""

    bundle: str
    """The digest."""
    backend: str
    device: str
    """Processor or GPU with what runs on it, versions included."""


@dataclass(frozen=True)
class Measured:
    """Median milliseconds to encode one face and one voice of 3 s, by precision, and over how many rounds.

    On the processor these are milliseconds of its time, without what other processes take in between.
    """

    ms: dict[str, float]
    rounds: int

    @property
    def fastest(self) -> str:
        """The precision to take: the highest, unless a lower one is faster by more than noise."""
        names = [name for name in PRECISIONS if name in self.ms]
        best = names[0]
        for name in names[1:]:
            if self.ms[name] <= ADVANTAGE * self.ms[best]:
                best = name
        return best

    def __str__(self) -> str:
        return ", ".join(f"{name} {ms:.2f} ms" for name, ms in self.ms.items())


class PrecisionCache:
    """Kept measurements, a file each under the user's cache folder. A damaged file counts as none."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_dir() / "precision"

    def path(self, key: MeasuredFor) -> Path:
        """The file of a key."""
        return self.folder / f"{hashlib.sha256(_canonical_json.encode(asdict(key))).hexdigest()[:32]}.json"

    def get(self, key: MeasuredFor, precisions: tuple[str, ...]) -> Measured | None:
        """What was measured for `key`, if it was exactly these precisions."""
        try:
            with open(self.path(key), "rb") as file:
                data = file.read(_MAX_FILE_BYTES)
            value = _canonical_json.decode(data)
            ms = {name: value["ms"][name] for name in PRECISIONS if name in value["ms"]}
            measured = Measured(ms, value["rounds"])
            whole = (
                value == _to_json(key, measured)
                and set(measured.ms) == set(precisions)
                and all(type(ms) is float and 0.0 < ms < 1e6 for ms in measured.ms.values())
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return measured if whole else None

    def put(self, key: MeasuredFor, measured: Measured) -> bool:
        """Keeps a measurement; False where the place cannot be written, which costs a measurement at each opening."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self.path(key), [_canonical_json.encode(_to_json(key, measured))])
        except (OSError, EdgePinError):
            return False
        return True


def measure(
    runtimes: Mapping[str, Runtime], face_size: int, log_mel: LogMelSpec, *, on_processor: bool
) -> Measured:
    """Times runtimes that differ in precision, a face and a voice each, in turns.

    In turns, and the median, because whatever else the machine does would else fall on one of them. What runs `on_processor`,
    in the calling thread, is timed by that thread's own clock, which stands still while others have the processor: on a
    busy machine the wall clock told precisions apart by anything from 0.9 to 2 times, and this one by 1.4 to 1.5.
    """
    clock = time.thread_time if on_processor else time.perf_counter
    random = np.random.default_rng(0)
    face = random.integers(0, 256, (1, face_size, face_size, 3), np.uint8)
    pcm = random.integers(-3000, 3000, (1, round(VOICE_SECONDS * log_mel.sample_rate)), np.int16)
    mel = random.standard_normal((1, log_mel.num_frames(pcm.shape[1]), log_mel.num_mels), np.float32)

    def once(runtime: Runtime) -> float:
        start = clock()
        runtime.encode("face", face)
        if isinstance(runtime, PcmRuntime) and runtime.takes_pcm:
            runtime.encode_pcm(pcm)
        else:
            runtime.encode("voice", mel)
        return clock() - start

    began = time.perf_counter()
    for runtime in runtimes.values():
        once(runtime)
    times: dict[str, list[float]] = {name: [] for name in runtimes}
    names, rounds = list(runtimes), 0
    while rounds == 0 or (rounds < ROUNDS and time.perf_counter() - began < MAX_SECONDS):
        for name in names:
            times[name].append(once(runtimes[name]))
        names.append(names.pop(0))
        rounds += 1
    return Measured(
        {name: round(1e3 * median(seconds), 4) or 1e-4 for name, seconds in times.items()}, rounds
    )


def _to_json(key: MeasuredFor, measured: Measured) -> dict[str, Any]:
    values = {"schema": _SCHEMA, "for": asdict(key), "ms": measured.ms, "rounds": measured.rounds}
    return dict(json.loads(json.dumps(values)))
