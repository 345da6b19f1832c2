"""Measuring which precision is the fastest: once, in turns, and never to be trusted when damaged."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepin._runtime import precision
from edgepin._runtime.precision import Measured, MeasuredFor, PrecisionCache, measure
from edgepin_kernels import LogMelSpec

KEY = MeasuredFor("a" * 64, "onnxruntime-cpu", "some processor (2 cores), ONNX Runtime 1.2")
BOTH = ("fp32", "int8")


class Timed:
    """A runtime that takes its time by a clock of its own, and notes when it is called."""

    name = "timed"

    def __init__(self, clock: list[float], log: list[str], label: str, seconds: float) -> None:
        self._clock, self._log, self._label, self._seconds = clock, log, label, seconds

    def encode(self, modality: str, batch: np.ndarray) -> Any:
        assert batch.shape == {"face": (1, 112, 112, 3), "voice": (1, 298, 80)}[modality]
        self._log.append(self._label)
        self._clock[0] += self._seconds


class TimedOnPcm(Timed):
    takes_pcm = True

    def encode_pcm(self, pcm: np.ndarray) -> Any:
        assert (pcm.shape, pcm.dtype) == ((1, 48_000), np.int16)
        self._log.append("pcm")


def timed(
    patch: pytest.MonkeyPatch, kind: type[Timed] = Timed, on_processor: bool = False, **seconds: float
) -> tuple[Measured, list[str]]:
    clock, log = [0.0], []
    patch.setattr(precision.time, "perf_counter", lambda: clock[0])
    patch.setattr(precision.time, "thread_time", lambda: clock[0] / 2)
    runtimes = {name: kind(clock, log, name, each) for name, each in seconds.items()}
    return measure(runtimes, 112, LogMelSpec(), on_processor=on_processor), log


def test_precisions_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, log = timed(monkeypatch, fp32=0.004, int8=0.001)
    assert measured == Measured({"fp32": 8.0, "int8": 2.0}, precision.ROUNDS)
    after_warm_up = log[4::2]
    assert after_warm_up[:6] == ["fp32", "int8", "int8", "fp32", "fp32", "int8"]


def test_what_runs_on_the_processor_is_timed_by_the_clock_of_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured, _ = timed(monkeypatch, on_processor=True, fp32=0.004)
    assert measured.ms == {"fp32": 4.0}


def test_slow_encoders_are_measured_in_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, log = timed(monkeypatch, fp32=0.2, int8=0.1)
    assert measured.rounds == 1
    assert len(log) == 8  # a warm-up and a round of two precisions and two encoders


def test_a_runtime_that_takes_pcm_is_measured_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, log = timed(monkeypatch, TimedOnPcm, fp32=0.001)
    assert measured.ms == {"fp32": 1.0}
    assert log.count("pcm") == log.count("fp32")


@pytest.mark.parametrize(
    ("ms", "fastest"),
    [
        ({"fp32": 2.0, "fp16": 1.5, "int8": 1.0}, "int8"),
        ({"fp32": 2.0, "fp16": 1.0, "int8": 0.99}, "fp16"),  # less than noise
        ({"fp32": 2.0, "int8": 1.91}, "fp32"),
        ({"fp32": 2.0, "int8": 3.0}, "fp32"),
        ({"int8": 3.0, "fp16": 2.0}, "fp16"),
        ({"int8": 3.0}, "int8"),
    ],
)
def test_a_lower_precision_must_be_faster_by_more_than_noise(ms: dict[str, float], fastest: str) -> None:
    assert Measured(ms, 7).fastest == fastest


def test_what_is_kept_is_found_again_for_the_same_and_for_nothing_else(tmp_path: Path) -> None:
    cache, measured = (
        PrecisionCache(tmp_path / "deep" / "precision"),
        Measured({"fp32": 2.5, "int8": 1.25}, 7),
    )
    assert cache.get(KEY, BOTH) is None
    assert cache.put(KEY, measured)
    assert PrecisionCache(cache.folder).get(KEY, BOTH) == measured
    assert cache.get(KEY, ("fp32", "fp16", "int8")) is None
    assert cache.get(KEY, ("fp32",)) is None
    for other in (
        ("b" * 64, KEY.backend, KEY.device),
        (KEY.bundle, "tensorrt", KEY.device),
        (KEY.bundle, KEY.backend, ""),
    ):
        assert cache.get(MeasuredFor(*other), BOTH) is None
    assert [path.name for path in cache.folder.iterdir()] == [cache.path(KEY).name]


@pytest.mark.parametrize(
    "damage",
    [
        {"ms": {"fp32": 2.0, "int8": -1.0}},
        {"ms": {"fp32": 2.0, "int8": "fast"}},
        {"ms": {"fp32": 2.0, "int8": True}},
        {"ms": {"fp32": 2.0, "int8": 1e300}},
        {"ms": [1, 2]},
        {"ms": None},
        {"rounds": None, "more": 1},
        {"for": {"bundle": "c" * 64, "backend": "x", "device": "y"}},
        {"schema": 2},
    ],
)
def test_a_file_that_says_something_else_counts_as_none(tmp_path: Path, damage: dict[str, Any]) -> None:
    cache = PrecisionCache(tmp_path)
    cache.put(KEY, Measured({"fp32": 2.0, "int8": 1.0}, 7))
    value = json.loads(cache.path(KEY).read_bytes())
    text = json.dumps({**value, **damage}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    cache.path(KEY).write_text(text + "\n")
    assert cache.get(KEY, BOTH) is None


def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path: Path) -> None:
    cache, measured = PrecisionCache(tmp_path), Measured({"fp32": 2.0, "int8": 1.0}, 7)
    cache.put(KEY, measured)
    whole = cache.path(KEY).read_bytes()
    for data in (
        b"",
        whole[:-5],
        b"\xff" * 50,
        b"[" * 4000,
        b"[]\n",
        b"null\n",
        b'{"ms":1}\n',
        b" " * 100_000,
    ):
        cache.path(KEY).write_bytes(data)
        assert cache.get(KEY, BOTH) is None
        assert cache.put(KEY, measured)
        assert cache.get(KEY, BOTH) == measured
    cache.path(KEY).unlink()
    cache.path(KEY).mkdir()
    assert cache.get(KEY, BOTH) is None
    assert not cache.put(KEY, measured)


def test_measuring_the_tiny_encoders_takes_less_than_half_a_second() -> None:
    from edgepin._runtime.runtime import OnnxRuntime

    from .conftest import DATA

    models = {modality: (DATA / f"{modality}.onnx").read_bytes() for modality in ("face", "voice")}
    runtimes = {name: OnnxRuntime(models) for name in BOTH}
    began = time.perf_counter()
    measured = measure(runtimes, 64, LogMelSpec(), on_processor=True)
    assert time.perf_counter() - began < 0.5
    assert set(measured.ms) == set(BOTH)
