from __future__ import annotations

from collections.abc import Iterator

import pytest

from .trt_harness import PluginHarness, build_harness


@pytest.fixture(scope="session")
def plugin_harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginHarness]:
    yield from build_harness(tmp_path_factory.mktemp("tensorrt-plugin"))


@pytest.fixture
def trt(plugin_harness: PluginHarness, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginHarness]:
    """As it comes from the factory, with an empty log. The launcher in Python finds a stand-in for nvcc."""
    monkeypatch.setenv("PATH", str(plugin_harness.gpu.folder), prepend=":")
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)

    def reset() -> None:
        plugin_harness.gpu.reset()
        plugin_harness.library.test_set(0, 0)
        plugin_harness.log()
        plugin_harness.launches()

    reset()
    yield plugin_harness
    reset()
