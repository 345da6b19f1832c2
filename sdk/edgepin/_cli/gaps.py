"""What keeps a GPU from being used well, each with the command that mends it."""

from __future__ import annotations

from typing import Any

from .hardware import Machine

Gap = dict[str, Any]
"""`what`, `why`, and `mend`: the command, or None where none helps."""


def find_gaps(
    machine: Machine, found: dict[str, Any], tensorrt: dict[str, Any], providers: list[str]
) -> list[Gap]:
    """The gaps of a machine, what matters most first.

    Args:
        machine: whose it is.
        found: its `survey`.
        tensorrt: `version`, or `why` and `mend` where there is none.
        providers: ONNX Runtime's.
    """
    board, gpu = found["jetson"], found["gpu"]
    if gpu["name"] is None:
        # Without a GPU nothing below would help.
        if board:
            return [_gap("gpu", gpu["why"], "sudo apt install --reinstall nvidia-l4t-cuda")]
        if found["driver"]:
            return [_gap("gpu", gpu["why"], "install libcuda.so.1 of the version of the kernel's driver")]
        return []
    gaps = []
    if board and board["jetpack"] and int(board["jetpack"].split(".")[0]) < 6:
        gaps.append(
            _gap(
                "jetpack",
                f"JetPack {board['jetpack']} has a TensorRT before 10.3",
                "install JetPack 6.1 or later",
            )
        )
    if tensorrt["version"] is None:
        gaps.append(_gap("tensorrt", tensorrt["why"], _tensorrt_mend(machine, board, tensorrt["mend"])))
    if found["packages"]["pycuda"] is None:
        extra = "jetson" if board else "tensorrt"
        why = "the TensorRT runtime needs pycuda"
        gaps.append(
            _gap("pycuda", why, f"pip install 'edgepin[{extra}]' (with nvcc on PATH: it is compiled)")
        )
    if found["cuda"]["nvcc"] is None:
        why = "the log-mel kernel is compiled on first use; without nvcc the processor computes the log-mel"
        gaps.append(_gap("nvcc", why, _nvcc_mend(board, gpu["cuda"])))
    if found["packages"]["cuda-bindings"] is None:
        major = (gpu["cuda"] or "12").split(".")[0]
        why = "without cuda-bindings no CUDA graph is recorded, and every kernel is launched by itself"
        gaps.append(_gap("cuda-bindings", why, f"pip install 'cuda-bindings=={major}.*'"))
    if tensorrt["version"] is None and not board and "CUDAExecutionProvider" not in providers:
        gaps.append(
            _gap(
                "onnxruntime-cuda",
                f"this onnxruntime has {', '.join(providers) or 'no provider'}",
                "pip uninstall onnxruntime && pip install onnxruntime-gpu",
            )
        )
    return gaps + _speed(found)


def _speed(found: dict[str, Any]) -> list[Gap]:
    """What makes a Jetson slow or its times uneven."""
    gaps: list[Gap] = []
    power = found["power"]
    if power and power["mode"] and power["fastest"] and power["mode"] != power["fastest"]["mode"]:
        why = f"the power mode is {power['mode']}; {power['fastest']['mode']} is the fastest"
        gaps.append(_gap("power", why, f"sudo nvpmodel -m {power['fastest']['id']}"))
    clocks = found["clocks"]
    if found["jetson"] and (clocks["cpu_fixed"] is False or clocks["gpu_fixed"] is False):
        why = "clocks follow the load, so that the first call after a pause is slow"
        gaps.append(_gap("clocks", why, "sudo jetson_clocks"))
    return gaps


def _tensorrt_mend(machine: Machine, board: Any, otherwise: str | None) -> str | None:
    if not board:
        return "pip install 'edgepin[tensorrt]'"
    if any(True for _ in machine.glob("usr/lib/python3*/dist-packages/tensorrt/__init__.py")):
        return "python3 -m venv --system-site-packages edgepin, and install edgepin there: TensorRT is the system's"
    return "sudo apt install nvidia-jetpack" if board["jetpack"] else otherwise


def _nvcc_mend(board: Any, cuda: str | None) -> str:
    if board and cuda:
        return f"sudo apt install cuda-nvcc-{cuda.replace('.', '-')}"
    return f"install the CUDA toolkit{f' {cuda} or older' if cuda else ''}, and set CUDA_HOME to it"


def _gap(what: str, why: str, mend: str | None) -> Gap:
    return {"what": what, "why": why, "mend": mend}
