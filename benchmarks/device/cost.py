"""Import, opening, a verification by stages, and resident memory. Each in a process of its own where it matters."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": version("onnxruntime"),
    }


def import_time(rounds: int = 15) -> dict[str, float]:
    """ms, medians of interleaved fresh processes: what `import edgepin` takes beyond numpy's own import."""
    code = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"
    after = "import numpy, time; t = time.perf_counter(); import edgepin; print(time.perf_counter() - t)"
    programs = {"numpy": code.format("numpy"), "edgepin": code.format("edgepin"), "beyond_numpy": after}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            times[name].append(1e3 * float(_run(program)))
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def opening(bundle: Path, people: int) -> dict[str, Any]:
    """ms: opening a bundle, and a store of `people` with three captures of both modalities."""
    from edgepin import Bundle, MemoryKey, Store
    from edgepin._store.template import Template

    rng = np.random.default_rng(0)
    key = MemoryKey(bytes(32))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        opened = Bundle.open(bundle, allow_unsigned=True)
        with Store.open(path, key, opened.digest) as store:
            start = time.perf_counter()
            for number in range(people):
                rows = rng.standard_normal((4, 3, 256)).astype(np.float32)
                rows /= np.linalg.norm(rows, axis=2, keepdims=True)
                store.put(
                    f"person-{number:06d}",
                    {"face": Template(rows[0], rows[1]), "voice": Template(rows[2], rows[3])},
                )
            filled = time.perf_counter() - start
        times: dict[str, list[float]] = {"bundle": [], "store": [], "both": []}
        gets: list[float] = []
        for _ in range(5):
            start = time.perf_counter()
            Bundle.open(bundle, allow_unsigned=True)
            middle = time.perf_counter()
            store = Store.open(path, key, opened.digest)
            end = time.perf_counter()
            for name, value in zip(times, (middle - start, end - middle, end - start), strict=True):
                times[name].append(1e3 * value)
            for number in range(200):
                start = time.perf_counter()
                store.get(f"person-{number * people // 200:06d}")
                gets.append(1e3 * (time.perf_counter() - start))
            store.close()
        return {
            "people": people,
            "store_megabytes": round(path.stat().st_size / 1e6, 1),
            "ms": {name: round(statistics.median(values), 1) for name, values in times.items()},
            "get_ms": round(statistics.median(gets), 3),
            "put_ms_each": round(1e3 * filled / people, 3),
        }


def verification(bundle: Path, face: Path, voice: Path, rounds: int = 60) -> dict[str, Any]:
    """ms by stage, medians, in a process with one thread, with all guard rails and a store on a real disk."""
    return dict(json.loads(_run(_VERIFY, str(bundle), str(face), str(voice), str(rounds))))


def memory(bundle: Path, face: Path, voice: Path) -> dict[str, float]:
    """MB resident in a fresh process with both encoders on the CPU: between verifications, as `verify --loop` leaves it, and at
    its peak.
    """
    return dict(json.loads(_run(_MEMORY, str(bundle), str(face), str(voice))))


def _run(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **_ONE_THREAD},
    ).stdout


_OPEN = """
import json, statistics, sys, tempfile
import numpy as np
import edgepin
from pathlib import Path
bundle, face, voice = sys.argv[1:4]
folder = tempfile.TemporaryDirectory(dir=".", prefix=".bench-")
verifier = edgepin.Verifier.open(
    bundle, Path(folder.name) / "e.db", key=edgepin.MemoryKey(bytes(32)), allow_unsigned=True, backend="onnxruntime-cpu"
)
with verifier.enroll("somebody") as session:
    session.add_face(face); session.add_voice(voice)
# Moved a little each time, as a living person is: a sample that has been here before is refused as a replay.
from edgepin._capture.audio import decode_audio
from edgepin._capture.image import decode_image
picture, (sound, rate) = decode_image(face), decode_audio(voice)
rng = np.random.default_rng(0)
def attempt():
    shade = np.clip(picture.astype(np.int16) + rng.integers(-3, 4, picture.shape, np.int16), 0, 255).astype(np.uint8)
    start = int(rng.integers(0, max(1, len(sound) - 3 * rate)))
    return verifier.verify("somebody", face=shade, voice=sound[start : start + 3 * rate], sample_rate=rate)
"""
_VERIFY = (
    _OPEN
    + """
stages = {}
for _ in range(int(sys.argv[4])):
    for name, ms in attempt().timings.items():
        stages.setdefault(name, []).append(ms)
    verifier.guard.unlock("somebody", by="benchmark", why="benchmark")
print(json.dumps({name: round(statistics.median(values), 3) for name, values in stages.items()}))
verifier.close()
"""
)
_MEMORY = (
    _OPEN
    + """
for _ in range(3):
    attempt()
from edgepin._runtime.memory import give_back_memory
give_back_memory()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
mb = lambda name: round(int(status[name].split()[0]) / 1000, 1)
print(json.dumps({"resident_mb": mb("VmRSS"), "peak_mb": mb("VmHWM"), "runtime": verifier.about}))
verifier.close()
"""
)
