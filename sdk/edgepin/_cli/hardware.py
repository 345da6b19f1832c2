"""What a machine says of itself: GPU, driver, JetPack, CUDA, power mode, clocks.

Nothing here is believed further than it can be read: a file may be missing, empty or garbage, a command may be absent,
fail, hang or print a novel. Whatever is not understood is None, and no answer is ever an exception.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_SECONDS = 10.0
_MAX_BYTES = 64 << 10

GPU_PROBE = (sys.executable, "-m", "edgepin._cli.gpu_probe")
# L4T's first number is JetPack's, where the package that names JetPack in full is not installed.
_JETPACK_OF_L4T = {"35": "5", "36": "6", "38": "7"}


def run_command(command: Sequence[str]) -> str | None:
    """What a command prints, or None if it is not here, fails, or takes too long."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return result.stdout[:_MAX_BYTES].decode("utf-8", "replace")


def installed_version(distribution: str) -> str | None:
    """The version of an installed Python package."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Machine:
    """How this machine is asked; tests ask another one."""

    root: Path = Path("/")
    run: Callable[[Sequence[str]], str | None] = run_command
    version: Callable[[str], str | None] = installed_version

    def read(self, path: str) -> str | None:
        """The text of a small file under `root`, stripped; None if it cannot be read."""
        try:
            # Not blocking, so that a pipe in its place does not hang.
            descriptor = os.open(self.root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return None
                return file.read(_MAX_BYTES).decode("utf-8", "replace").strip("\0\n\r\t ")
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """A file that holds a whole number."""
        text = self.read(path)
        return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text) else None

    def glob(self, pattern: str) -> Iterator[str]:
        """Paths under `root`, in order."""
        with suppress(OSError):
            yield from sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern))


def survey(machine: Machine) -> dict[str, Any]:
    """All of it: `gpu`, `driver`, `jetson`, `cuda`, `packages`, `power`, `clocks`, as `doctor --json` has them."""
    board = jetson(machine)
    return {
        "gpu": gpu(machine),
        "driver": driver_version(machine),
        "jetson": board,
        "cuda": {"nvcc": nvcc_version(machine)},
        "packages": {name: machine.version(name) for name in ("pycuda", "cuda-bindings")},
        "power": power(machine) if board else None,
        "clocks": clocks(machine),
    }


def gpu(machine: Machine) -> dict[str, Any]:
    """`name`, `capability`, `cuda`, `memory_mib`; all None and `why` where there is none to be used."""
    answer: Any = None
    with suppress(ValueError, RecursionError):
        answer = json.loads(machine.run(GPU_PROBE) or "null")
    found: dict[str, Any] = dict.fromkeys(("name", "capability", "cuda", "memory_mib", "why"))
    if not isinstance(answer, dict):
        return {**found, "why": "the CUDA driver does not answer"}
    if _text(answer.get("name")) is None:
        return {**found, "why": _text(answer.get("error")) or "the CUDA driver does not answer"}
    found["name"] = _text(answer["name"])
    for key, pattern in (("capability", r"sm_\d{2,3}[a-z]?"), ("cuda", r"\d{1,2}\.\d{1,2}")):
        text = _text(answer.get(key))
        found[key] = text if text and re.fullmatch(pattern, text) else None
    memory = answer.get("memory_mib")
    found["memory_mib"] = memory if type(memory) is int and memory > 0 else None
    return found


def driver_version(machine: Machine) -> str | None:
    """NVIDIA's kernel driver, such as `540.4.0`."""
    text = machine.read("proc/driver/nvidia/version") or ""
    found = re.search(r"Kernel Module\D*?(?:for \S+\s+)?(\d{3,4}\.\d+(?:\.\d+)?)", text)
    if found is None:
        said = machine.run(("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")) or ""
        found = re.match(r"\s*(\d{3,4}\.\d+(?:\.\d+)?)\s*$", said.splitlines()[0] if said.strip() else "")
    return found[1] if found else None


def jetson(machine: Machine) -> dict[str, Any] | None:
    """`module`, `l4t`, `jetpack`; None on anything but a Jetson."""
    module = _text(machine.read("proc/device-tree/model"))
    release = machine.read("etc/nv_tegra_release")
    if release is None and not (module and ("jetson" in module.lower() or "tegra" in module.lower())):
        return None
    found = re.search(r"R(\d{1,3}) \(release\), REVISION: (\d{1,3}(?:\.\d{1,3})*)", release or "")
    l4t = f"{found[1]}.{found[2]}" if found else None
    said = machine.run(("dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack")) or ""
    package = re.match(r"(\d{1,2}(?:\.\d{1,2})*)", said.strip())
    jetpack = package[1] if package else _JETPACK_OF_L4T.get(found[1]) if found else None
    return {"module": module, "l4t": l4t, "jetpack": jetpack}


def nvcc_version(machine: Machine) -> str | None:
    """The CUDA toolkit's compiler, such as `12.6`: the one on PATH, or where JetPack puts it."""
    for command in ("nvcc", "/usr/local/cuda/bin/nvcc"):
        found = re.search(r"release (\d{1,2}\.\d{1,2})", machine.run((command, "--version")) or "")
        if found:
            return found[1]
    return None


def power(machine: Machine) -> dict[str, Any]:
    """`mode` of nvpmodel, and `fastest`: the mode without a limit, with its number."""
    found = re.search(r"NV Power Mode:\s*(\S{1,40})", machine.run(("nvpmodel", "-q")) or "")
    modes = re.findall(
        r"POWER_MODEL\s+ID=(\d{1,3})\s+NAME=([\w+-]{1,40})", machine.read("etc/nvpmodel.conf") or ""
    )
    fastest = [(name, int(number)) for number, name in modes if name.startswith("MAXN")]
    fastest.sort(key=lambda mode: mode[0] != "MAXN_SUPER")
    return {
        "mode": found[1] if found else None,
        "fastest": {"mode": fastest[0][0], "id": fastest[0][1]} if fastest else None,
    }


def clocks(machine: Machine) -> dict[str, Any]:
    """Whether the clocks stand still, as `jetson_clocks` makes them: `cpu_fixed`, `gpu_fixed`, `governor`, `gpu_mhz`.

    Read from sysfs, since `jetson_clocks --show` needs root. None where it cannot be read.
    """
    cpus = [
        (machine.number(f"{folder}/scaling_min_freq"), machine.number(f"{folder}/scaling_max_freq"))
        for folder in machine.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq")
    ]
    governors = {
        _text(machine.read(path))
        for path in machine.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    }
    folder = next(
        (path for path in machine.glob("sys/class/devfreq/*") if re.search(r"gpu|g[ab]10b", path)), None
    )
    gpu_range = tuple(machine.number(f"{folder}/{name}_freq") if folder else None for name in ("min", "max"))
    current = machine.number(f"{folder}/cur_freq") if folder else None
    return {
        "cpu_fixed": _fixed(cpus),
        "gpu_fixed": _fixed([(gpu_range[0], gpu_range[1])]),
        "governor": governors.pop() if len(governors) == 1 else None,
        "gpu_mhz": None if current is None else current // 1_000_000,
    }


def _fixed(ranges: list[tuple[int | None, int | None]]) -> bool | None:
    if not ranges or any(low is None or high is None for low, high in ranges):
        return None
    return all(low == high for low, high in ranges)


def _text(value: object) -> str | None:
    """A short printable text, or None."""
    if not isinstance(value, str):
        return None
    text = " ".join("".join(one if one.isprintable() else " " for one in value).split())
    return text[:300] or None
