"""The compiled kernel without Python: under sanitizers here, and on aarch64 under emulation."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgepin_kernels import LogMelSpec, reference_log_mel

from .log_mel_cases import ENERGY_TOLERANCE, SPECS, as_float, linear, noise
from .native.driver import Case, Driver, build

AARCH64 = "EDGEPIN_TEST_AARCH64"


def cases(kernel: str, **options: int) -> list[Case]:
    """Every spec at its shortest utterance and at two longer ones, in both types of sample."""
    found = []
    for name in sorted(SPECS):
        spec = SPECS[name]
        for extra in (0, 1, 3_003):
            pcm = noise(2, spec.min_samples + extra, seed=extra)
            found.append(Case(spec, pcm, kernel, **options))
            found.append(Case(linear(spec), as_float(pcm), kernel, **options))
    return found


def check(driver: Driver, kernel: str, **options: int) -> None:
    asked = cases(kernel, **options)
    for case, result in zip(asked, driver.run(asked), strict=True):
        for samples, values in zip(case.pcm, result, strict=True):
            expected = reference_log_mel(case.spec, samples)
            if case.spec.log == "none":
                peak = expected.max(axis=1, keepdims=True)
                assert (np.abs(values - expected) <= ENERGY_TOLERANCE * peak + 1e-30).all(), case
            else:
                np.testing.assert_allclose(values, expected, rtol=0, atol=2e-3, err_msg=repr(case))


@pytest.fixture(scope="module")
def aarch64(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    if not os.environ.get(AARCH64):
        pytest.skip(f"the kernel on aarch64 is tested by `make test-aarch64` ({AARCH64} is not set)")
    missing = [name for name in ("aarch64-linux-gnu-g++", "qemu-aarch64") if shutil.which(name) is None]
    assert not missing, f"not here: {missing}; on Debian: apt-get install g++-aarch64-linux-gnu qemu-user"
    return build(
        tmp_path_factory.mktemp("aarch64"),
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
        run_with=("qemu-aarch64",),
    )


def test_aarch64_has_the_kernel_of_neon(aarch64: Driver) -> None:
    assert aarch64.kernels() == ["neon"]


@pytest.mark.parametrize("threads", [1, 2])
def test_neon_equals_the_reference(aarch64: Driver, threads: int) -> None:
    check(aarch64, "neon", threads=threads)


def sanitized(folder: Path, sanitizer: str) -> Driver:
    flags = f"-fsanitize={sanitizer} -fno-sanitize-recover=all -g"
    return build(folder, f"-DCMAKE_CXX_FLAGS={flags}", "-DEDGEPIN_KERNEL_OPTIMIZATION=-O1")


def test_no_sample_is_read_or_written_out_of_bounds(tmp_path: Path) -> None:
    driver = sanitized(tmp_path, "address,undefined")
    for kernel in driver.kernels():
        check(driver, kernel)


def test_threads_do_not_race(tmp_path: Path) -> None:
    driver = sanitized(tmp_path, "thread")
    pcm = noise(9, 9_000)
    specs = [LogMelSpec.preset(name) for name in ("kaldi", "whisper", "nemo")]
    asked = [
        Case(spec, samples, kernel, threads=3, callers=3)
        for spec in specs
        for samples in (pcm, pcm[:1].copy(), as_float(pcm[:2]))
        for kernel in driver.kernels()[:1]
    ]
    alone = [dataclasses.replace(case, threads=1, callers=1) for case in asked]
    for together, single in zip(driver.run(asked), driver.run(alone), strict=True):
        np.testing.assert_array_equal(together, single)
