from __future__ import annotations

from collections.abc import Iterator

import pytest

from .emulated_gpu import EmulatedGpu, emulated_driver


@pytest.fixture(scope="session")
def emulated_gpu(tmp_path_factory: pytest.TempPathFactory) -> EmulatedGpu:
    return emulated_driver(tmp_path_factory.mktemp("emulated-gpu"))


@pytest.fixture
def gpu(emulated_gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedGpu]:
    """As it comes from the factory: nothing is set up, and the log is empty."""
    monkeypatch.setenv("PATH", str(emulated_gpu.folder), prepend=":")
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    emulated_gpu.reset()
    yield emulated_gpu
    emulated_gpu.reset()
