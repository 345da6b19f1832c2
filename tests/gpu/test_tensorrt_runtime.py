"""The TensorRT runtime on a real GPU, with whichever TensorRT is here: skipped elsewhere, and not run anywhere yet."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgepin import EnvironmentFault, MemoryKey
from edgepin._runtime.cuda_device import import_pycuda
from edgepin._runtime.engine_builder import BuildSettings, InputRange, build_engine
from edgepin._runtime.engine_cache import EngineCache
from edgepin._runtime.engine_jobs import engine_key
from edgepin._runtime.runtime import OnnxRuntime
from edgepin._runtime.tensorrt_api import load_tensorrt, this_gpu
from edgepin._runtime.tensorrt_runtime import TensorRtRuntime
from edgepin_kernels import LogMel, LogMelSpec

pytestmark = pytest.mark.gpu

DATA = Path(__file__).resolve().parents[1] / "sdk" / "data"
SPEC = LogMelSpec()
RANGES = {
    "face": InputRange("face", (1, 64, 64, 3), (1, 64, 64, 3), (1, 64, 64, 3)),
    "voice": InputRange("log_mel", (1, 48, 80), (1, 298, 80), (1, 998, 80)),
}
MODELS = {modality: (DATA / f"{modality}.onnx").read_bytes() for modality in RANGES}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TensorRtRuntime]:
    try:
        gpu, tensorrt = this_gpu(), load_tensorrt()
        import_pycuda()
    except EnvironmentFault as fault:
        pytest.skip(str(fault))
    cache = EngineCache(tmp_path_factory.mktemp("engines"), MemoryKey(bytes(32)))
    engines = {}
    for modality, model in MODELS.items():
        settings = BuildSettings((RANGES[modality],))
        built = build_engine(model, settings, tensorrt=tensorrt)
        key = engine_key(model, modality, "fp32", gpu, tensorrt, settings.digest)
        cache.put(key, built.engine, built.report)
        engines[modality] = cache.get(key)
    runtime = TensorRtRuntime(engines, tensorrt, SPEC)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def reference() -> OnnxRuntime:
    return OnnxRuntime(MODELS)


def face(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 64, 64, 3), np.uint8)


def pcm(seed: int, samples: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, (1, samples), np.int16)


def assert_same(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)


@pytest.mark.parametrize("turn", range(4))  # plain, recorded, replayed, replayed
def test_faces_agree_with_onnxruntime_on_the_processor(
    runtime: TensorRtRuntime, reference: OnnxRuntime, turn: int
) -> None:
    assert_same(runtime.encode("face", face(turn)), reference.encode("face", face(turn)), 1e-3)


@pytest.mark.parametrize("samples", [8000, 16_000, 48_000, 159_999])
def test_voices_agree_with_onnxruntime_on_the_processor(
    runtime: TensorRtRuntime, reference: OnnxRuntime, samples: int
) -> None:
    for turn in range(4):
        sound = pcm(turn, samples)
        expected = reference.encode("voice", LogMel(SPEC)(sound))
        assert_same(runtime.encode("voice", LogMel(SPEC)(sound)), expected, 1e-3)
        if runtime.takes_pcm:
            assert_same(runtime.encode_pcm(sound), expected, 1e-3)


def test_a_replayed_graph_gives_what_the_plain_enqueue_gave(runtime: TensorRtRuntime) -> None:
    if runtime.graphs == 0:
        pytest.skip("; ".join(runtime.notes))
    sound = LogMel(SPEC)(pcm(5, 20_000))
    plain = runtime.encode("voice", sound)
    before = runtime.graphs
    for _ in range(3):
        assert_same(runtime.encode("voice", sound), plain, 1e-5)
    assert runtime.graphs == before + 1


def test_threads_get_their_own_results(runtime: TensorRtRuntime, reference: OnnxRuntime) -> None:
    def work(number: int) -> None:
        assert_same(runtime.encode("face", face(number)), reference.encode("face", face(number)), 1e-3)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(40)))
