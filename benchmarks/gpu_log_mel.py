"""How fast the CUDA log-mel is on this machine's GPU: against torch, against an empty kernel, against the hardware.

    python benchmarks/gpu_log_mel.py [--json results.json] [--rounds 15] [--seconds 40]

It needs an NVIDIA GPU, nvcc, and a torch that was built for CUDA, and stops with a message without them. It has run on
an H200: ``benchmarks/results/gpu_log_mel_h200.json``, explained in ``docs/cuda-log-mel.md``. For bugs that only a GPU
shows, see the commands in ``tests/gpu/test_cuda_log_mel.py``.

Methods take turns within a round, so that a change of the clocks meets all of them; the table has medians over the
rounds. Times are from CUDA events around a row of calls, divided by their number. Fix the clocks first
(``nvidia-smi -lgc``, on a Jetson ``jetson_clocks``), or read ratios alone, and let nothing else run on the GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgepin_kernels import LogMelSpec, reference_log_mel
from edgepin_kernels._cuda import CudaError, CudaLogMel, CudaUnavailableError
from edgepin_kernels._cuda_build import find_nvcc
from edgepin_kernels._cuda_driver import Driver
from edgepin_kernels._presets import PRESETS
from edgepin_kernels._reference import mel_filters

BATCHES = (1, 64, 1_024)
SECONDS = (1, 3, 10)
SPECS = ("librosa", "kaldi", "wespeaker", "nemo")  # librosa's definition is what torch.stft is timed on
SAMPLE_RATE = 16_000
TOLERANCE = 2e-3
# CUdevice_attribute of cuda.h.
_CLOCK_KHZ, _MULTIPROCESSORS, _MEMORY_CLOCK_KHZ, _MEMORY_BITS = 13, 16, 36, 37
_SCHEDULERS = 4  # of a multiprocessor, each one instruction a clock, on every architecture from sm_80 on
# A model, not a measurement: instructions of a warp for one frame that lies inside its utterance, counted along the path
# through the listing of sm_90 (nvcc 13.0), preset kaldi.
_INSTRUCTIONS_PER_FRAME = 1_220


class TorchLogMel:
    """The preset ``librosa`` as torch users write it: the same definition, in single precision."""

    def __init__(self, torch: Any, spec: LogMelSpec) -> None:
        self._torch, self._spec = torch, spec
        self._window = torch.hann_window(spec.frame_length, periodic=True, device="cuda")
        self._filters = torch.from_numpy(mel_filters(spec)).float().cuda()

    def __call__(self, pcm: Any) -> Any:
        spec = self._spec
        spectrum = self._torch.stft(
            pcm.float() / 32768.0,
            spec.fft_length,
            spec.hop_length,
            spec.frame_length,
            self._window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return (power.transpose(1, 2) @ self._filters).clamp_min(spec.log_floor).log()


@dataclasses.dataclass(frozen=True)
class Method:
    name: str
    call: Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the CUDA log-mel on this machine's GPU.")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of which the median is taken")
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="fewer rounds, at least 3, to be done in about this time"
    )
    arguments = parser.parse_args()
    try:
        driver = Driver()
        torch = _torch()
        nvcc = find_nvcc()
        results = measure(torch, driver, nvcc, arguments.rounds, arguments.seconds)
    except CudaUnavailableError as error:
        sys.exit(f"gpu_log_mel: {error}")
    except CudaError as error:
        sys.exit(f"gpu_log_mel: the GPU failed: {error}")
    print_table(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise CudaUnavailableError(
            "torch is not here; pip install torch, built for this machine's CUDA"
        ) from None
    if not torch.cuda.is_available():
        raise CudaUnavailableError(
            f"torch {torch.__version__} sees no GPU; install one that is built for CUDA"
        )
    return torch


def measure(
    torch: Any, driver: Driver, nvcc: str, rounds: int, seconds_at_most: float = 0.0
) -> dict[str, Any]:
    """Everything, as what is written to JSON. Times are microseconds a call."""
    until = time.monotonic() + seconds_at_most if seconds_at_most else float("inf")
    device = driver.device(0)
    limits = {
        "memory_gb_s": 2
        * driver.attribute(_MEMORY_CLOCK_KHZ, device)
        * driver.attribute(_MEMORY_BITS, device)
        / 8e6,
        "copy_gb_s": _copy_bandwidth(torch),
        "issue_g_s": driver.attribute(_MULTIPROCESSORS, device)
        * _SCHEDULERS
        * driver.attribute(_CLOCK_KHZ, device)
        / 1e6,
        "instructions_per_frame_model": _INSTRUCTIONS_PER_FRAME,
    }
    empty = _empty_kernel(driver, nvcc, driver.compute_capability(device))
    plans = {name: CudaLogMel(PRESETS[name]) for name in SPECS}
    rows = []
    shapes = [(seconds, batch) for seconds in SECONDS for batch in BATCHES]
    for done, (seconds, batch) in enumerate(shapes):
        share = (until - time.monotonic()) / (len(shapes) - done)
        row: dict[str, Any] = {"batch": batch, "seconds": seconds, **_floors(limits, batch, seconds)}
        if _torch_bytes(batch, seconds) > torch.cuda.mem_get_info()[0]:
            row["skipped"] = "torch.stft and its graph do not fit into the GPU's memory"
        else:
            row |= _row(torch, plans, empty, batch, seconds, rounds, time.monotonic() + share)
        rows.append(row)
        torch.cuda.empty_cache()
    major, minor = driver.compute_capability(device)
    return {
        "command": " ".join(sys.argv),
        "machine": {
            "host": platform.machine(),
            "gpu": driver.device_name(device),
            "capability": f"{major}.{minor}",
        },
        "versions": {
            "driver_cuda": driver.version(),
            "driver": _said(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
            "nvcc": _said([nvcc, "--version"]).splitlines()[-1:],
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "clocks": _said(
            ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,temperature.gpu", "--format=csv,noheader"]
        ),
        "others_on_the_gpu": _others(),
        "limits": limits,
        "rows": rows,
    }


def _row(
    torch: Any,
    plans: dict[str, CudaLogMel],
    empty: Callable[[int], None],
    batch: int,
    seconds: int,
    rounds: int,
    until: float,
) -> dict[str, Any]:
    """Median times of all methods for one shape, alone and in a CUDA graph."""
    stream = torch.cuda.Stream()
    few = np.random.default_rng(batch + seconds).normal(0, 3_000, (min(batch, 64), seconds * SAMPLE_RATE))
    samples = np.tile(few.astype(np.int16), (batch // len(few), 1))
    pcm = torch.from_numpy(samples).cuda()
    outs = {name: torch.empty(plan.out_shape(samples.shape), device="cuda") for name, plan in plans.items()}
    peer = TorchLogMel(torch, PRESETS["librosa"])
    methods = [Method("empty", lambda: empty(stream.cuda_stream)), Method("torch.stft", lambda: peer(pcm))]
    for name, plan in plans.items():
        methods.append(Method(name, lambda plan=plan, name=name: plan(pcm, outs[name], stream=stream)))
    torch.cuda.synchronize()  # what was made above was made on the default stream
    with torch.cuda.stream(stream), torch.inference_mode():
        for method in methods:
            for _ in range(3):
                result = method.call()
            if method.name == "torch.stft":
                outs[method.name] = result
    stream.synchronize()
    _check(plans, outs, samples)

    # Long enough for the events' own half microsecond not to matter, short enough for many rounds.
    calls = max(5, 2_000 // (batch * seconds))
    graphs = {method.name: _graph(torch, stream, method, calls) for method in methods}
    times: dict[str, list[float]] = {}
    for done in range(rounds):
        if done >= 3 and time.monotonic() > until:
            break
        for method in methods:
            times.setdefault(method.name, []).append(_time(torch, stream, method.call, calls) / calls)
            replay = _time(torch, stream, graphs[method.name].replay, 1) / calls
            times.setdefault(f"{method.name} in a graph", []).append(replay)
    return {
        "rounds": len(times["empty"]),
        "microseconds": {name: round(statistics.median(values), 3) for name, values in times.items()},
    }


def _check(plans: dict[str, CudaLogMel], outs: dict[str, Any], samples: np.ndarray) -> None:
    """What is timed must be right first."""
    for name, out in outs.items():
        spec = PRESETS["librosa" if name == "torch.stft" else name]
        expected = reference_log_mel(spec, samples[-1])
        error = float(np.abs(out[-1].cpu().numpy() - expected).max())
        if not error <= TOLERANCE:
            sys.exit(f"gpu_log_mel: {name} is {error:.2e} off the definition; its time would mean nothing")


def _graph(torch: Any, stream: Any, method: Method, calls: int) -> Any:
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph, stream=stream):
        for _ in range(calls):
            method.call()
    return graph


def _time(torch: Any, stream: Any, call: Callable[[], Any], calls: int) -> float:
    """Microseconds of a row of calls."""
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.cuda.stream(stream), torch.inference_mode():
        start.record(stream)
        for _ in range(calls):
            call()
        stop.record(stream)
    stop.synchronize()
    return float(start.elapsed_time(stop)) * 1e3


def _floors(limits: dict[str, float], batch: int, seconds: int) -> dict[str, Any]:
    """The least time by memory (each byte once) and by instructions (a model), microseconds, for the preset kaldi."""
    spec, samples = PRESETS["kaldi"], seconds * SAMPLE_RATE
    frames = spec.num_frames(samples)
    size = batch * (2 * samples + 4 * frames * spec.num_mels)
    return {
        "floor_memory_us": round(size / limits["memory_gb_s"] / 1e3, 3),
        "floor_issue_us": round(batch * frames * _INSTRUCTIONS_PER_FRAME / limits["issue_g_s"] / 1e3, 3),
    }


def _torch_bytes(batch: int, seconds: int) -> int:
    """About what the arrays of torch's pipeline take, eager and once more in the graph's own pool."""
    spec = PRESETS["librosa"]
    frames = spec.num_frames(seconds * SAMPLE_RATE)
    return 2 * 4 * batch * frames * (spec.fft_length + 5 * (spec.fft_length // 2 + 1) + 4 * spec.num_mels)


def _copy_bandwidth(torch: Any) -> float:
    """What a large copy within the GPU reaches, read and written bytes together."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    target, stream = torch.empty_like(source), torch.cuda.current_stream()
    times = [_time(torch, stream, lambda: target.copy_(source), 10) / 10 for _ in range(5)]
    return 2 * source.numel() / min(times) / 1e3


def _empty_kernel(driver: Driver, nvcc: str, capability: tuple[int, int]) -> Callable[[int], None]:
    """A launch of nothing with as large an argument: what no kernel can undercut."""
    import ctypes

    from edgepin_kernels._cuda_params import LogMelParams

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "empty.cu", Path(folder) / "empty.cubin"
        size = ctypes.sizeof(LogMelParams)
        source.write_text(f'struct P {{ char bytes[{size}]; }};\nextern "C" __global__ void empty(P) {{}}\n')
        command = [nvcc, "-cubin", f"-arch=sm_{capability[0]}{capability[1]}", "-o", str(target), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        image = target.read_bytes()
    context = driver.retain_primary_context(driver.device(0))
    with driver.current(context):
        function = driver.function(driver.load_module(image), "empty")
    nothing = LogMelParams()

    def launch(stream: int) -> None:
        with driver.current(context):
            driver.launch(function, (1, 1), 128, 0, stream, nothing, cooperative=False)

    return launch


def _others() -> int | None:
    """Processes on the GPU beside this one, as far as nvidia-smi sees them; None where it is not."""
    if shutil.which("nvidia-smi") is None:
        return None
    listed = _said(["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]).split()
    return max(0, len(listed) - 1)


def _said(command: list[str]) -> str:
    """What a program prints, or nothing where it is not (a Jetson has no nvidia-smi)."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def print_table(results: dict[str, Any]) -> None:
    """Times, and how many times as fast as torch."""
    print(
        f"{results['machine']['gpu']} (sm_{results['machine']['capability']}), microseconds a call, medians"
    )
    for row in results["rows"]:
        if "skipped" in row:
            print(f"batch {row['batch']}, {row['seconds']} s: {row['skipped']}")
    rows = [row for row in results["rows"] if "skipped" not in row]
    names = list(rows[0]["microseconds"])
    head = f"{'batch':>6}{'s':>4}" + "".join(
        f"{name[:16]:>18}" for name in (*names, "memory floor", "issue floor*")
    )
    print(head)
    for row in rows:
        cells = "".join(f"{row['microseconds'][name]:>18.2f}" for name in names)
        floors = f"{row['floor_memory_us']:>18.2f}{row['floor_issue_us']:>18.2f}"
        print(f"{row['batch']:>6}{row['seconds']:>4}{cells}{floors}")
    print("* a model: instructions a frame times frames over what the schedulers issue; kaldi")
    for row in rows:
        times = row["microseconds"]
        eager, graph = (times[f"torch.stft{how}"] / times[f"librosa{how}"] for how in ("", " in a graph"))
        over = times["librosa in a graph"] / times["empty in a graph"]
        print(
            f"batch {row['batch']}, {row['seconds']} s: torch.stft takes {eager:.1f} times as long, in a graph {graph:.1f};"
            f" an empty kernel takes 1/{over:.1f}"
        )


if __name__ == "__main__":
    main()
