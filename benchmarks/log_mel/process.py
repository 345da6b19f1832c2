"""The other end of a worker: starts it with the right number of threads, asks, and ends it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.log_mel.method import Case, Method, Unavailable

_ROOT = Path(__file__).resolve().parents[2]

# Longer than any request takes: a library that compiles itself at first use takes half a minute.
_PATIENCE_SECONDS = 180.0

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)

# Threads that wait by spinning take the cores from the method whose turn comes next.
PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}

REMOVED_VARIABLES = (
    # They make OpenBLAS take kernels of another processor than this one.
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    # It says what our own "auto" means.
    "EDGEPIN_LOG_MEL",
)


def worker_environment(threads: int) -> dict[str, str]:
    """What a worker's process sees; set before it imports anything."""
    environment = {name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES}
    environment.update({name: str(threads) for name in THREAD_VARIABLES}, **PASSIVE_WAITING)
    return environment


class Worker:
    """A process that holds one method. It computes while it is asked, and sleeps otherwise.

    Raises:
        Unavailable: by every request, where the method cannot run here.
        RuntimeError: by every request, where the process died or does not answer.
    """

    def __init__(self, method: Method, threads: int) -> None:
        self.method, self.threads = method, threads
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.log_mel.worker", method.name, method.preset, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=_ROOT,
            env=worker_environment(threads),
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._complaints: list[str] = []
        for read in (self._read_answers, self._read_complaints):
            threading.Thread(target=read, daemon=True).start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def prepare(self, case: Case) -> tuple[float | None, float]:
        """Build for a case: the difference from the definition, and about how many nanoseconds a call takes."""
        self.ask("prepare", seconds=case.seconds, batch=case.batch)
        answer = self.answer()
        return answer["difference"], answer["ns"]

    def time(self, calls: int) -> list[float]:
        """The nanoseconds of each of so many calls; before several, one that is not counted."""
        self.ask("time", calls=calls)
        return list(self.answer()["ns"])

    def ask(self, do: str, **values: Any) -> None:
        """Send a request; `answer` waits for what comes back."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
        except BrokenPipeError:
            raise self._dead() from None

    def answer(self) -> dict[str, Any]:
        """What the last request was answered."""
        try:
            line = self._answers.get(timeout=_PATIENCE_SECONDS)
        except queue.Empty:
            raise RuntimeError(
                f"{self.method.label} has not answered for {_PATIENCE_SECONDS:.0f} s"
            ) from None
        if not line:
            raise self._dead()
        answer: dict[str, Any] = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        return answer

    def _dead(self) -> RuntimeError:
        code = self._process.wait()
        last = "; ".join(line.strip() for line in self._complaints[-3:])
        return RuntimeError(f"{self.method.label} ended with exit code {code}: {last}")

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _read_complaints(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._complaints.append(line)
