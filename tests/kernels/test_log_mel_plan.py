"""A LogMel plan: what it chooses, and that it may be shared, sent, forked and called for ever."""

from __future__ import annotations

import os
import pickle
import platform
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import edgepin_kernels
from edgepin_kernels import LogMel, LogMelSpec
from edgepin_kernels._compiled import CompiledLogMel

from .log_mel_cases import KERNELS, each_implementation, noise


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"spec": "kaldi"}, TypeError, "LogMelSpec"),
        ({"threads": 0}, ValueError, "threads"),
        ({"threads": 1.0}, ValueError, "threads"),
        ({"threads": True}, ValueError, "threads"),
        ({"implementation": "fast"}, ValueError, "auto, .*numpy, not"),
        ({"implementation": None}, ValueError, "auto, .*numpy, not"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LogMel(**{"spec": LogMelSpec(), **arguments})  # type: ignore[arg-type]


@each_implementation
def test_a_plan_says_what_runs(implementation: str) -> None:
    plan = LogMel(LogMelSpec(), threads=2, implementation=implementation)  # type: ignore[arg-type]
    assert (plan.implementation, plan.threads, plan.spec) == (implementation, 2, LogMelSpec())


def test_auto_is_the_fastest_kernel_that_this_processor_has() -> None:
    assert LogMel(LogMelSpec()).implementation == KERNELS[0]
    assert KERNELS[-1] in ("portable", "neon")
    flags = Path("/proc/cpuinfo").read_text() if platform.machine() == "x86_64" else ""
    if "avx512vl" in flags:
        assert KERNELS == ["avx512", "avx2", "portable"]
    elif "avx2" in flags:
        assert KERNELS == ["avx2", "portable"]


@pytest.mark.parametrize("name", ["numpy", "portable"])
def test_the_environment_says_what_auto_means_and_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "portable" and name not in KERNELS:
        pytest.skip("on this processor the kernel for any processor is the one of NEON")
    monkeypatch.setenv("EDGEPIN_LOG_MEL", name)
    assert LogMel(LogMelSpec()).implementation == name
    assert LogMel(LogMelSpec(), implementation=KERNELS[0]).implementation == KERNELS[0]  # type: ignore[arg-type]


def test_an_environment_that_names_nothing_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPIN_LOG_MEL", "fastest")
    with pytest.raises(ValueError, match=r"EDGEPIN_LOG_MEL must be one of .*numpy, not 'fastest'"):
        LogMel(LogMelSpec())


def test_a_kernel_of_another_processor_is_refused() -> None:
    foreign = "neon" if "neon" not in KERNELS else "avx2"
    with pytest.raises(ValueError, match="kernel of this processor"):
        LogMel(LogMelSpec(), implementation=foreign)  # type: ignore[arg-type]


def test_without_the_extension_only_numpy_runs_and_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "edgepin_kernels._native", None)
    monkeypatch.delattr(edgepin_kernels, "_native")
    with pytest.raises(ImportError, match="EDGEPIN_LOG_MEL=numpy"):
        LogMel(LogMelSpec())
    assert LogMel(LogMelSpec(), implementation="numpy").implementation == "numpy"


@pytest.mark.parametrize("shape", [(1, 4, 80), (2, 3, 80), (1, 3, 79)])
def test_the_extension_itself_writes_and_reads_nothing_out_of_bounds(shape: tuple[int, int, int]) -> None:
    plan = CompiledLogMel(LogMelSpec(), KERNELS[0], threads=1)
    plan.run(noise(1, 720), np.empty((1, 3, 80), np.float32))
    with pytest.raises(ValueError, match="does not belong"):
        plan.run(noise(1, 720), np.empty(shape, np.float32))


@pytest.mark.parametrize("implementation", ["auto", "numpy"])
def test_one_thread_is_one_thread(implementation: str) -> None:
    # In a process of its own, as the number of threads of the matrix library is set when it loads.
    code = (
        "import time, numpy as np; from edgepin_kernels import LogMel, LogMelSpec\n"
        f"plan, pcm = LogMel(LogMelSpec(), 1, {implementation!r}), np.ones(160_000, np.int16)\n"
        # The matrix library's threads are busy for a while after they start.
        "plan(pcm); time.sleep(0.5); whole, own = time.process_time(), time.thread_time()\n"
        "for _ in range(300): plan(pcm)\n"
        "print((time.process_time() - whole) / (time.thread_time() - own))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert float(done.stdout) < 1.15


@pytest.mark.parametrize("implementation", ["auto", "numpy"])
def test_a_plan_survives_the_way_to_another_process(implementation: str) -> None:
    plan = LogMel(LogMelSpec.preset("wespeaker"), 2, implementation)  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(plan))
    assert (again.spec, again.threads, again.implementation) == (plan.spec, 2, plan.implementation)
    np.testing.assert_array_equal(again(noise(5_000)), plan(noise(5_000)))


@each_implementation
@pytest.mark.parametrize("threads", [1, 2])
def test_calls_from_many_threads_do_not_disturb_each_other(implementation: str, threads: int) -> None:
    plan = LogMel(LogMelSpec.preset("wespeaker"), threads, implementation)  # type: ignore[arg-type]
    sounds = [noise(3, 4_000 + 500 * i, seed=i) for i in range(8)]
    expected = [plan(pcm) for pcm in sounds]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            for ours, alone in zip(pool.map(plan, sounds), expected, strict=True):
                np.testing.assert_array_equal(ours, alone)


def test_a_fork_of_the_process_can_use_the_plan_with_all_its_threads() -> None:
    # In a process of its own: one that runs tests has threads that a fork would break.
    code = (
        "import os, numpy as np; from edgepin_kernels import LogMel, LogMelSpec\n"
        "plan, pcm = LogMel(LogMelSpec(), threads=2), np.arange(300_000, dtype=np.int16).reshape(5, -1)\n"
        "expected = plan(pcm)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    same = all((plan(pcm) == expected).all() for _ in range(20)); del plan; os._exit(0 if same else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert (plan(pcm) == expected).all()"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_a_compiled_call_lets_other_threads_run() -> None:
    plan, pcm = LogMel(LogMelSpec()), noise(200, 48_000)
    started, counts = threading.Event(), 0

    def call() -> None:
        started.set()
        plan(pcm)

    thread = threading.Thread(target=call)
    thread.start()
    started.wait()
    while thread.is_alive():
        counts += 1
    assert counts > 1_000


COUNTING_ALLOCATOR = """
#include <stddef.h>
extern void *__libc_malloc(size_t); extern void *__libc_calloc(size_t, size_t); extern void *__libc_memalign(size_t, size_t);
static long count;
void *malloc(size_t n) { __atomic_add_fetch(&count, 1, 0); return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { __atomic_add_fetch(&count, 1, 0); return __libc_calloc(n, m); }
void *aligned_alloc(size_t a, size_t n) { __atomic_add_fetch(&count, 1, 0); return __libc_memalign(a, n); }
long allocations(void) { return count; }
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_the_steady_state_allocates_nothing(threads: int, tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or pytest.skip("gcc is not here: allocations are NOT counted")
    source, library = tmp_path / "count.c", tmp_path / "count.so"
    source.write_text(COUNTING_ALLOCATOR)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", source, "-o", library], check=True)
    code = (
        "import ctypes, sys, numpy as np; from edgepin_kernels import LogMel, LogMelSpec\n"
        "count = ctypes.CDLL(sys.argv[1]).allocations\n"
        "specs = [LogMelSpec.preset(name) for name in ('kaldi', 'whisper', 'nemo')]\n"
        "plans = [LogMel(spec, threads=int(sys.argv[2])) for spec in specs]\n"
        "pcm = np.ones((9, 16_000), np.int16)\n"
        "outs = [plan(pcm) for plan in plans]\n"
        "def calls(times):\n"
        "    before = count()\n"
        "    for _ in range(times):\n"
        "        for plan, out in zip(plans, outs): plan(pcm, out=out)\n"
        "    return count() - before\n"
        "calls(20); print(calls(300))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, library, str(threads)],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    # The interpreter's own, now and then; one for every call would be 900.
    assert int(done.stdout) < 50
