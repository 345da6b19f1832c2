"""Small C++ sources, compiled by the system's compiler when they are needed and kept nowhere."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.log_mel.method import Unavailable


def find_compiler() -> str:
    """The path of ``$CXX``, g++ or c++.

    Raises:
        Unavailable: there is none.
    """
    for name in (os.environ.get("CXX"), "g++", "c++"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise Unavailable("there is no C++ compiler (g++)")


def compiler_version() -> str | None:
    """The first line of what the compiler says of itself."""
    try:
        result = subprocess.run([find_compiler(), "--version"], capture_output=True, text=True, check=True)
    except (Unavailable, OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.splitlines()[0] if result.stdout else None


def load_library(source: Path, *flags: str) -> ctypes.CDLL:
    """``source`` compiled with ``-O3`` and ``flags``, and loaded.

    Raises:
        Unavailable: there is no compiler, or it refuses; the message ends with its first complaint.
    """
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="edgepin-bench-") as folder:
        library = Path(folder) / f"{source.stem}.so"
        command = [compiler, "-std=c++17", "-O3", "-fPIC", "-shared", str(source), "-o", str(library), *flags]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            complaint = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr)
            raise Unavailable(f"{source.name} does not compile: {complaint.strip()[:200]}")
        # Once it is loaded, the file may go.
        return ctypes.CDLL(str(library))
