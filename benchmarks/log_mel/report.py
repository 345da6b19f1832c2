"""The result as a JSON value for programs and as a table for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from benchmarks.log_mel import figures, floor, ours
from benchmarks.log_mel.interleaved import Effort, Measured, Result
from benchmarks.log_mel.machine import describe_environment, describe_machine, package_versions
from benchmarks.log_mel.method import Case
from benchmarks.log_mel.operations import (
    frame_operations,
    utterance_operations,
    utterance_operations_with_logarithm,
)
from benchmarks.log_mel.summary import Timing, best_ratio, disturbance, ratio
from edgepin_kernels import LogMelSpec

Json = dict[str, object]


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that a run has found."""

    command: str
    effort: Effort
    grid: Measured
    own: Measured
    own_figures: dict[str, figures.Figure]
    overhead: tuple[float, float] | None
    """Nanoseconds of `LogMel` and of the compiled plan."""

    @property
    def results(self) -> list[Result]:
        return self.grid.results

    @property
    def left_out(self) -> dict[str, str]:
        return {**self.grid.left_out, **self.own.left_out}

    def ours(self, result: Result) -> Timing | None:
        """What a result is divided by: `ours.NAME` with its preset, in its case."""
        wanted = (ours.NAME, result.method.preset, result.case)
        for other in self.results:
            if (other.method.name, other.method.preset, other.case) == wanted:
                return other.timing
        return None

    def disturbance(self) -> float | None:
        """See `summary.disturbance`; None without results."""
        timings = [result.timing for result in self.results]
        return disturbance(timings) if timings else None

    def cases(self) -> list[Case]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(result.case for result in self.results))


def report_json(report: Report) -> Json:
    """Times in milliseconds, rates in 10^9 operations a second."""
    presets = dict.fromkeys(result.method.preset for result in report.results)
    return {
        "benchmark": "log_mel",
        "command": report.command,
        "machine": describe_machine(),
        "versions": package_versions(),
        "environment": describe_environment(),
        "rounds": report.effort.rounds,
        "disturbance": report.disturbance(),
        "definitions": {name: LogMelSpec.preset(name).to_json() for name in presets},
        "floor": _floor_json(report),
        "figures": {
            name: {"about": figure.about, "by_median": figure.by_median, "by_best": figure.by_best}
            for name, figure in report.own_figures.items()
        },
        "python_call": _overhead_json(report),
        "own_timings": [_result_json(result, None) for result in report.own.results],
        "results": [_result_json(result, report.ours(result)) for result in report.results],
        "left_out": report.left_out,
    }


def _result_json(result: Result, own: Timing | None) -> Json:
    values: Json = {
        "method": result.method.name,
        "about": result.method.about,
        "preset": result.method.preset,
        **dataclasses.asdict(result.case),
        **result.timing.to_json(),
        "rounds": result.rounds,
        "calls_a_round": result.calls,
        "difference_from_definition": result.difference,
    }
    if own is not None:
        values["times_ours_by_median"] = ratio(result.timing, own)
        values["times_ours_by_best"] = best_ratio(result.timing, own)
    return values


def _floor_json(report: Report) -> Json:
    spec = LogMelSpec.preset("kaldi")
    samples = round(figures.SECONDS * spec.sample_rate)
    operations = utterance_operations(spec, samples)
    values: Json = {
        "seconds": figures.SECONDS,
        "frames": spec.num_frames(samples),
        "operations_a_frame": frame_operations(spec),
        "operations": operations,
        "operations_with_logarithms_as_polynomials": utterance_operations_with_logarithm(spec, samples),
    }
    for result in report.own.results:
        if result.method.name in (floor.ADD, floor.FMA):
            kind = "additions" if result.method.name == floor.ADD else "fused"
            # Operations a second; a fused instruction counts as two.
            values[f"peak_{kind}_gflops"] = operations / result.timing.best
            values[f"{kind}_ms"] = result.timing.to_json()
    return values


def _overhead_json(report: Report) -> Json | None:
    if report.overhead is None:
        return None
    log_mel, plan = report.overhead
    return {"log_mel_us": log_mel / 1e3, "plan_us": plan / 1e3, "overhead_us": (log_mel - plan) / 1e3}


def report_text(report: Report) -> str:
    """A table for each case, the fastest first, and the own figures."""
    return "\n".join([*_tables(report), *_own(report)])


def _tables(report: Report) -> Iterator[str]:
    for case in report.cases():
        rows = sorted(
            (result for result in report.results if result.case == case), key=lambda row: row.timing.median
        )
        yield f"{case} (milliseconds a call; x: times {ours.NAME} with the same preset, by medians)"
        yield f"  {'method':<44} {'preset':<11} {'median':>9} {'p10':>9} {'p90':>9} {'best':>9} {'x':>7}"
        for row in rows:
            own = report.ours(row)
            times = f"{ratio(row.timing, own):7.2f}" if own else "      -"
            values = " ".join(f"{value:9.3f}" for value in row.timing.to_json().values())
            yield f"  {row.method.name:<44} {row.method.preset:<11} {values} {times}"
        yield ""


def _own(report: Report) -> Iterator[str]:
    yield f"{ours.NAME}'s own figures, {figures.SECONDS:g} s (by medians; by the fastest calls)"
    for figure in report.own_figures.values():
        yield f"  {figure.about:<66} {figure.by_median:6.2f} {figure.by_best:6.2f}"
    values = _floor_json(report)
    yield f"  {'operations of the definition':<66} {values['operations']:>13,}"
    for kind in ("additions", "fused"):
        if f"peak_{kind}_gflops" in values:
            rate = values[f"peak_{kind}_gflops"]
            yield f"  {f'peak rate of {kind}, 10^9 operations a second':<66} {rate:13.1f}"
    if report.overhead is not None:
        log_mel, plan = report.overhead
        about = "microseconds that Python adds to a call (LogMel against the bare plan)"
        yield f"  {about:<66} {(log_mel - plan) / 1e3:8.2f}"
    disturbed = report.disturbance()
    if disturbed is not None:
        yield f"  {'medians over fastest calls, all rows: near 1 on a quiet machine':<66} {disturbed:6.2f}"
    for name, reason in report.left_out.items():
        yield f"LEFT OUT: {name}: {reason}"
