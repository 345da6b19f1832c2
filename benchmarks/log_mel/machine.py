"""What a result was measured on, and with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from benchmarks.log_mel.compiler import compiler_version
from benchmarks.log_mel.process import PASSIVE_WAITING, REMOVED_VARIABLES, THREAD_VARIABLES

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPU_INFO = Path("/proc/cpuinfo")

PACKAGES = (
    "edgepin",
    "numpy",
    "scipy",
    "torch",
    "pyFFTW",
    "librosa",
    "kaldi-native-fbank",
    "onnxruntime",
    "onnx",
)


def describe_machine() -> dict[str, object]:
    """Processor, cores, kernel, governor where it can be read, and the load."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "governor": _read(_GOVERNOR),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def package_versions() -> dict[str, str | None]:
    """Of Python, the compiler and all packages that take part; None for one that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "compiler": compiler_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def describe_environment() -> dict[str, object]:
    """How the workers' environment differs from this process's."""
    return {
        "set_to_threads": list(THREAD_VARIABLES),
        "set": PASSIVE_WAITING,
        "removed": [name for name in REMOVED_VARIABLES if name in os.environ],
        "onnxruntime": "session.intra_op.allow_spinning=0",
    }


def _processor() -> str:
    """The model's name, or on ARM its implementer and part; what Python knows where neither is told."""
    fields: dict[str, str] = {}
    for line in (_read(_CPU_INFO) or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    if "model name" in fields:
        known = [f"{name} {fields[name]}" for name in ("cpu family", "model", "stepping") if name in fields]
        return ", ".join([fields["model name"], *known])
    if "CPU part" in fields:
        return f"implementer {fields.get('CPU implementer')}, part {fields['CPU part']}"
    return platform.processor() or platform.machine()


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return None
