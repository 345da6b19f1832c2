"""CUDA graphs: what a stream is given once, kept to be launched again in one call.

pycuda has no capture; `cuda-bindings` has, and takes the stream of pycuda by its handle. Without `cuda-bindings`
every run is enqueued anew, which costs some microseconds a kernel.

Nothing of this has run on a GPU: tests hold its calls against a fake `cuda-bindings` that records them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .._errors import EdgePinError, EnvironmentFault
from .runtime import first_line


class GraphRecorder:
    """Captures streams by `cuda-bindings`. Raises `EnvironmentFault`, with the hint, where it is missing."""

    def __init__(self) -> None:
        try:
            self._driver: Any = importlib.import_module("cuda.bindings.driver")
        except Exception as error:  # missing, or of another CUDA than the driver's
            raise EnvironmentFault(
                f"CUDA graphs need cuda-bindings ({first_line(error)})",
                hint="pip install 'cuda-bindings==12.*' (the CUDA of your driver: edgepin doctor)",
            ) from error

    def record(self, stream: int, enqueue: Callable[[], None]) -> CudaGraph:
        """The graph of what `enqueue` gives to the stream, which is not run.

        The stream is out of the capture again when this returns or raises. Only this thread is held to what a capture
        allows: other libraries may allocate at the same time.

        Raises whatever `enqueue` raises, and `EdgePinError` where the driver refuses.
        """
        driver, handle = self._driver, self._driver.CUstream(stream)
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _check(driver, "cuStreamBeginCapture", driver.cuStreamBeginCapture(handle, mode))
        try:
            enqueue()
        except BaseException:
            # Else the stream would stay in a capture, and refuse everything from here on.
            with suppress(Exception):
                _, graph = driver.cuStreamEndCapture(handle)
                if graph is not None:
                    driver.cuGraphDestroy(graph)
            raise
        (graph,) = _check(driver, "cuStreamEndCapture", driver.cuStreamEndCapture(handle))
        try:
            (executable,) = _check(driver, "cuGraphInstantiate", driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)  # the executable one is apart from it
        return CudaGraph(driver, executable, handle)


class CudaGraph:
    """A recorded graph, for the stream that it was recorded on. The context must be current in both calls."""

    def __init__(self, driver: Any, executable: Any, stream: Any) -> None:
        self._driver, self._executable, self._stream = driver, executable, stream

    def launch(self) -> None:
        """Enqueues all of it. Raises `EdgePinError`."""
        _check(self._driver, "cuGraphLaunch", self._driver.cuGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Gives it back; it must not be running."""
        self._driver.cuGraphExecDestroy(self._executable)


def _check(driver: Any, name: str, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call returned besides its `CUresult`."""
    code, *values = answer
    if code != driver.CUresult.CUDA_SUCCESS:
        raise EdgePinError(f"{name} failed: {getattr(code, 'name', code)}")
    return tuple(values)
