"""From the kernel's source to a cubin for exactly one GPU, by the machine's own nvcc, once."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from edgepin_kernels._cuda_driver import CudaUnavailableError

SOURCE = Path(__file__).resolve().parent / "cuda"
KERNEL = "edgepin_log_mel"
_OPTIONS = ("-cubin", "-std=c++17", "-O3")
_HOME_VARIABLE = "EDGEPIN_HOME"
_DIGEST_BYTES = 32


def build(fft_length: int, store: str, capability: tuple[int, int], folder: Path | None = None) -> bytes:
    """The cubin, from the cache or compiled into it.

    A cubin is code for one architecture, and not PTX, which a driver older than the compiler would refuse.

    Args:
        fft_length: 512 or 400.
        store: what the result is stored as, ``"float32"`` or ``"float16"``.
        capability: major and minor compute capability of the GPU.
        folder: the cache; None is the user's.

    Raises:
        CudaUnavailableError: there is no nvcc, it fails, or the cache cannot be trusted; the message says what to do.
    """
    nvcc = find_nvcc()
    options = nvcc_options(fft_length, store, capability)
    digest = hashlib.sha256()
    for part in (_nvcc_version(nvcc, os.stat(nvcc).st_mtime_ns), *options):
        digest.update(part.encode() + b"\0")
    for path in sources():
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    cache = private_folder(folder or cache_folder())
    entry = cache / f"log-mel-{digest.hexdigest()[:32]}.cubin"
    kept = _read(entry)
    if kept is not None:
        return kept
    image = _compile(nvcc, options)
    _write(entry, image)
    return image


def sources() -> list[Path]:
    """The kernel's files, by name."""
    return sorted(path for path in SOURCE.iterdir() if path.suffix in {".cu", ".cuh", ".h"})


def nvcc_options(fft_length: int, store: str, capability: tuple[int, int]) -> list[str]:
    """What nvcc is told besides the files."""
    return [
        *_OPTIONS,
        f"-arch=sm_{capability[0]}{capability[1]}",
        f"-DEDGEPIN_FFT_LENGTH={fft_length}",
        f"-DEDGEPIN_STORE_HALF={int(store == 'float16')}",
    ]


def find_nvcc() -> str:
    """The compiler: that of ``CUDA_HOME`` or ``CUDA_PATH``, the first one on ``PATH``, or the one where JetPack puts it.

    Raises:
        CudaUnavailableError: there is none.
    """
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            found = shutil.which("nvcc", path=str(Path(os.environ[variable]) / "bin"))
            if found:
                return found
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        raise CudaUnavailableError(
            "nvcc is not here, and the CUDA kernel is compiled for this GPU on first use;"
            " on a Jetson: sudo apt install cuda-nvcc-12-6 (the version of your JetPack); elsewhere install the CUDA"
            " toolkit and set CUDA_HOME to it"
        )
    return found


def cache_folder() -> Path:
    """Where the SDK keeps what can be made again: ``EDGEPIN_HOME``, or under ``XDG_CACHE_HOME`` or ``~/.cache``."""
    home = os.environ.get(_HOME_VARIABLE)
    if home:
        return Path(home).expanduser().absolute() / "cache" / "kernels"
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    return root / "edgepin" / "kernels"


def private_folder(folder: Path) -> Path:
    """The folder, made if it is not there. What lies in it is run, so nobody else may write to it.

    Raises:
        CudaUnavailableError: it cannot be made, or it belongs to or is open to others.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise CudaUnavailableError(
            f"the cache of compiled kernels cannot be made: {error}; set {_HOME_VARIABLE} to a folder of yours"
        ) from error
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CudaUnavailableError(
            f"others may write to {folder}, and kernels in it are run; chown it to yourself and chmod 700 it"
        )
    return folder


@functools.lru_cache(maxsize=8)
def _nvcc_version(nvcc: str, modified_ns: int) -> str:
    """What it says of itself; ``modified_ns`` tells one nvcc from the next under the same name."""
    return _run([nvcc, "--version"])


def _compile(nvcc: str, options: list[str]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="edgepin-nvcc-") as folder:
        target = Path(folder) / "log_mel.cubin"
        _run([nvcc, *options, "-o", str(target), str(SOURCE / "log_mel.cu")])
        try:
            return target.read_bytes()
        except OSError as error:
            raise CudaUnavailableError(f"{nvcc} reported success and wrote nothing: {error}") from error


def _run(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CudaUnavailableError(
            f"{command[0]} cannot be run: {error}; set CUDA_HOME to the toolkit"
        ) from error
    if result.returncode:
        said = (result.stderr or result.stdout).strip()[-2000:]
        raise CudaUnavailableError(f"{' '.join(command)} failed with {result.returncode}: {said}")
    return result.stdout


def _read(entry: Path) -> bytes | None:
    """The cubin of an entry, or None if there is none or it is damaged."""
    try:
        data = entry.read_bytes()
    except OSError:
        return None
    image = data[_DIGEST_BYTES:]
    return image if image and hashlib.sha256(image).digest() == data[:_DIGEST_BYTES] else None


def _write(entry: Path, image: bytes) -> None:
    """To a sibling and then renamed, so that nobody reads half of it. A full disk costs the cache, not the kernel."""
    with contextlib.suppress(OSError):
        handle, sibling = tempfile.mkstemp(dir=entry.parent, prefix=".log-mel-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(image).digest() + image)
            os.replace(sibling, entry)
        except OSError:
            os.unlink(sibling)
            raise
