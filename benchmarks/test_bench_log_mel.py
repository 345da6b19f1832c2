"""Our log-mel under pytest-benchmark, each kernel of this processor: ``pytest benchmarks --benchmark-only``.

Against the peers it is ``python -m benchmarks.log_mel``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgepin_kernels import LogMel, LogMelSpec
from edgepin_kernels._compiled import available_kernels

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")

SECONDS = 3


def kernels() -> list[str]:
    """All that this processor runs; without the compiled extension only numpy."""
    try:
        return [*available_kernels(), "numpy"]
    except ImportError:
        return ["numpy"]


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=["int16", "float32"])
@pytest.mark.parametrize("preset", ["kaldi", "whisper", "nemo"])
@pytest.mark.benchmark(warmup=True, warmup_iterations=3, max_time=0.5, min_rounds=5, disable_gc=True)
def test_log_mel(benchmark: Any, preset: str, dtype: type, batch: int, kernel: str) -> None:
    spec = LogMelSpec.preset(preset)
    pcm = np.random.default_rng(7).integers(-3_000, 3_000, (batch, SECONDS * spec.sample_rate))
    samples = pcm.astype(np.int16) if dtype == np.int16 else (pcm / 32768).astype(np.float32)
    log_mel = LogMel(spec, implementation=kernel)  # type: ignore[arg-type]
    out = np.empty((batch, spec.num_frames(samples.shape[1]), spec.num_mels), np.float32)
    benchmark.group = f"{preset}, {np.dtype(dtype).name}, batch {batch}, {SECONDS} s"
    benchmark.extra_info.update(preset=preset, dtype=np.dtype(dtype).name, batch=batch, seconds=SECONDS)

    benchmark(log_mel, samples, out=out)

    assert np.isfinite(out).all()
