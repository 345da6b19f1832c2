"""The benchmark compares like with like: every peer computes the definition, takes its turn and is divided by ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from benchmarks.log_mel import floor, interleaved, ours
from benchmarks.log_mel.__main__ import parse
from benchmarks.log_mel.figures import own_figures
from benchmarks.log_mel.interleaved import Effort, Measured, Result, measure, run_rounds
from benchmarks.log_mel.method import (
    TOLERANCE,
    Case,
    Inputs,
    Method,
    Pipeline,
    Unavailable,
    difference,
    make_inputs,
)
from benchmarks.log_mel.methods import METHODS
from benchmarks.log_mel.operations import (
    frame_operations,
    real_fft_operations,
    utterance_operations,
    vector_steps,
)
from benchmarks.log_mel.process import REMOVED_VARIABLES, Worker, worker_environment
from benchmarks.log_mel.report import Report, report_json, report_text
from benchmarks.log_mel.summary import Timing, disturbance, ratio, summarize

from edgepin_kernels import LogMelSpec

PIPELINES = [method for method in METHODS if method.name not in (floor.ADD, floor.FMA)]
FLOORS = [method for method in METHODS if method.name in (floor.ADD, floor.FMA)]


def prepared(method: Method, case: Case) -> tuple[Inputs, Pipeline]:
    reason = method.missing()
    if reason:
        pytest.skip(reason)
    inputs = make_inputs(method.preset, case)
    try:
        return inputs, method.prepare(inputs)
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("method", PIPELINES, ids=lambda method: method.label)
def test_a_method_computes_the_definition_of_its_preset(method: Method, batch: int) -> None:
    inputs, pipeline = prepared(method, Case(0.4, batch, 1))
    assert pipeline.log_mel is not None
    for _ in range(2):  # whatever arrays it reuses
        made = pipeline.call()
    assert difference(inputs, pipeline.log_mel(made)) <= TOLERANCE


def test_the_difference_is_that_of_the_worst_value_and_of_the_last_utterance() -> None:
    inputs = make_inputs("kaldi", Case(0.1, 2, 1))
    pipeline = ours.methods()[-1].prepare(inputs)
    assert pipeline.log_mel is not None
    log_mel = np.array(pipeline.log_mel(pipeline.call()))
    log_mel[1, 3, 5] += 0.5
    assert difference(inputs, log_mel) == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(ValueError, match=r"the log-mel must be \(2, 8, 80\), not \(2, 80, 8\)"):
        difference(inputs, log_mel.swapaxes(1, 2))


def test_every_utterance_of_a_batch_is_another_sound() -> None:
    pcm = make_inputs("kaldi", Case(0.5, 4, 1)).pcm
    assert len({row.tobytes() for row in pcm}) == 4
    assert np.abs(pcm).max() > 5_000


def count_split_radix(points: int) -> int:
    """Of real samples, by the recursion: half of them, and twice a quarter, put together bin by bin."""
    if points == 2:
        return 2
    if points == 4:
        return 6
    # Bin 0 has four real sums. Bin points / 8 meets real values: two products and two sums, and two complex sums.
    # Every other bin up to a quarter has two complex products (6 each) and six complex sums.
    sums = 4 + 8 + 24 * (points // 8 - 1)
    return count_split_radix(points // 2) + 2 * count_split_radix(points // 4) + sums


@pytest.mark.parametrize(("points", "operations"), [(4, 6), (8, 22), (16, 70), (512, 7174)])
def test_the_transform_is_counted_as_split_radix(points: int, operations: int) -> None:
    assert real_fft_operations(points) == count_split_radix(points) == operations


@pytest.mark.parametrize("points", [0, 2, 400, 500])
def test_transforms_of_other_lengths_have_no_count(points: int) -> None:
    with pytest.raises(ValueError, match=f"not of {points}"):
        real_fft_operations(points)


def test_the_operations_of_three_seconds_are_3_4_million() -> None:
    spec = LogMelSpec.preset("kaldi")
    steps = frame_operations(spec)
    assert steps["mean"] == steps["pre-emphasis"] == 2 * steps["window"] == 2 * steps["conversion from int16"]
    assert steps["power"] == 3 * 255  # bins 0 and 256 are under no triangle
    assert utterance_operations(spec, 48_000) == 298 * sum(steps.values())
    assert 3.3e6 < utterance_operations(spec, 48_000) < 3.5e6


def test_steps_that_are_not_in_a_definition_are_not_counted() -> None:
    steps = frame_operations(LogMelSpec.preset("torchaudio"))
    assert (steps["mean"], steps["pre-emphasis"]) == (0, 0)
    with pytest.raises(ValueError, match="not counted"):
        frame_operations(LogMelSpec.preset("nemo"))


def test_vector_steps_make_up_at_least_the_operations() -> None:
    assert vector_steps(1_000, lanes=8, chains=10, per_step=1) == 13
    assert vector_steps(1_000, lanes=8, chains=10, per_step=2) == 7


@pytest.mark.parametrize("method", FLOORS, ids=lambda method: method.name)
def test_a_floor_does_the_work_of_the_definition_so_many_times(method: Method) -> None:
    _, pipeline = prepared(method, Case(0.4, 1, 1))
    assert pipeline.log_mel is None
    assert pipeline.repeats > 10
    pipeline.call()


def test_a_summary_takes_means_within_rounds_and_medians_over_them() -> None:
    timing = summarize([[10.0, 20.0], [40.0, 20.0], [12.0, 12.0]])
    assert (timing.median, timing.best) == (15.0, 10.0)
    assert timing.p10 == pytest.approx(12.6)
    assert timing.p90 == pytest.approx(27.0)
    for nothing in ([], [[1.0], []]):
        with pytest.raises(ValueError, match="every method needs a round"):
            summarize(nothing)


def test_a_ratio_is_theirs_over_ours_by_medians() -> None:
    assert ratio(Timing(30.0, 1.0, 99.0, 2.0), Timing(10.0, 1.0, 99.0, 5.0)) == 3.0
    assert disturbance([Timing(12.0, 0, 0, 10.0), Timing(30.0, 0, 0, 10.0), Timing(10.0, 0, 0, 10.0)]) == 1.2


def test_each_round_runs_every_method_once_and_starts_with_the_next() -> None:
    ran = []
    turns = [lambda name=name: ran.append(name) or [float(len(ran))] for name in "abc"]
    times = run_rounds(turns, 3)
    assert "".join(ran) == "abc" + "bca" + "cab"
    assert times == [[[1.0], [6.0], [8.0]], [[2.0], [4.0], [9.0]], [[3.0], [5.0], [7.0]]]


def test_rounds_of_all_methods_are_as_long() -> None:
    effort = Effort(rounds=5, round_ns=20e6)
    assert [effort.calls(ns) for ns in (1e5, 6e6, 19e6, 5e8)] == [200, 3, 1, 1]


def wrong(inputs: Inputs) -> Pipeline:
    return Pipeline(lambda: np.zeros((inputs.batch, inputs.frames, inputs.spec.num_mels)), np.asarray)


class FakeWorker:
    """Answers as a process would, without one."""

    def __init__(self, method: Method, difference: float | None, times: Iterator[float]) -> None:
        self.method, self._difference, self._times = method, difference, times

    def prepare(self, case: Case) -> tuple[float | None, float]:
        return self._difference, 10e6

    def time(self, calls: int) -> list[float]:
        return [next(self._times) for _ in range(calls)]


def test_a_method_that_computes_something_else_is_left_out_loudly() -> None:
    good, bad = (Method(name, "kaldi", "", wrong) for name in ("good", "bad"))
    said: list[str] = []
    measured = Measured()
    case = Case(3.0, 1, 1)
    pairs = [
        (FakeWorker(good, 1e-4, iter([7.0, 9.0, 5.0, 5.0])), case),
        (FakeWorker(bad, 0.01, iter([])), case),
    ]
    results = measure(pairs, Effort(rounds=2, round_ns=20e6), measured, said.append)  # type: ignore[arg-type]
    assert [(result.method.name, result.timing.median, result.calls) for result in results] == [
        ("good", 6.5, 2)
    ]
    assert measured.left_out == {"bad": "its log-mel is 0.01 from the definition: that is other work"}
    assert said == ["LEFT OUT: bad: its log-mel is 0.01 from the definition: that is other work"]


def test_a_peer_that_is_not_installed_is_left_out_loudly() -> None:
    method = Method("nobody's", "kaldi", "", wrong, ("no-such-distribution",))
    said: list[str] = []
    measured = interleaved.measure_grid([method], [Case(3.0, 1, 1)], Effort(1, 1.0), said.append)
    assert measured.results == []
    assert measured.left_out == {"nobody's": "no-such-distribution is not installed"}
    assert "LEFT OUT: nobody's: no-such-distribution is not installed" in said


def test_a_worker_prepares_checks_and_times_calls() -> None:
    method = next(method for method in METHODS if method.name == "edgepin numpy")
    with Worker(method, 1) as worker:
        far, call_ns = worker.prepare(Case(0.1, 2, 1))
        assert far is not None
        assert far < 1e-4
        assert 1e3 < call_ns < 1e9
        times = worker.time(4)
        assert len(times) == 4
        assert min(times) > 1e3


def test_a_worker_that_dies_says_why() -> None:
    with (
        Worker(Method("nobody's", "kaldi", "", wrong), 1) as worker,
        pytest.raises(RuntimeError, match=r"nobody's ended with exit code 1: .*no method is called"),
    ):
        worker.prepare(Case(0.1, 1, 1))


def test_workers_see_their_threads_and_no_variable_that_slows_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in REMOVED_VARIABLES:
        monkeypatch.setenv(name, "x")
    environment = worker_environment(2)
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "2"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert not set(REMOVED_VARIABLES) & environment.keys()


def made_up() -> Report:
    """Two presets, two cases; ours takes 1 ms with kaldi and 2 ms with librosa."""
    kaldi, librosa = (Method(ours.NAME, preset, "", wrong) for preset in ("kaldi", "librosa"))
    peer, other = Method("peer", "kaldi", "", wrong), Method("other", "librosa", "", wrong)
    grid = Measured(left_out={"absent": "it is not installed"})
    for case in (Case(3.0, 1, 1), Case(3.0, 64, 1)):
        for method, milliseconds in ((kaldi, 1), (librosa, 2), (peer, 12), (other, 12)):
            nanoseconds = milliseconds * case.batch * 1e6
            grid.results.append(
                Result(method, case, Timing(nanoseconds, nanoseconds, nanoseconds, nanoseconds), 3, 1, 0.0)
            )
    return Report("python -m benchmarks.log_mel", Effort(3, 1e6), grid, Measured(), {}, (5_000.0, 2_000.0))


def test_a_peer_is_divided_by_ours_of_its_preset_and_case() -> None:
    rows = report_json(made_up())["results"]
    assert isinstance(rows, list)
    times = {
        (row["method"], row["batch"]): row["times_ours_by_median"] for row in rows if "p" not in row["method"]
    }
    assert times == {("other", 1): 6.0, ("other", 64): 6.0}
    assert {row["times_ours_by_median"] for row in rows if row["method"] == "peer"} == {12.0}
    assert next(row for row in rows if row["method"] == "peer")["median_ms"] == 12.0


def test_the_report_names_what_was_left_out_and_where_it_was_measured() -> None:
    report = made_up()
    text, values = report_text(report), report_json(report)
    assert "LEFT OUT: absent: it is not installed" in text
    assert "3 s, batch 64, 1 thread" in text
    assert values["left_out"] == {"absent": "it is not installed"}
    machine, definitions, call = values["machine"], values["definitions"], values["python_call"]
    assert isinstance(machine, dict)
    assert {"processor", "cores", "system", "governor"} <= machine.keys()
    assert isinstance(definitions, dict)
    assert definitions["kaldi"] == LogMelSpec.preset("kaldi").to_json()
    assert isinstance(call, dict)
    assert call["overhead_us"] == 3.0


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from benchmarks.log_mel.chart import draw_chart

    draw_chart(made_up(), tmp_path / "chart.svg")
    assert "<svg" in (tmp_path / "chart.svg").read_text("utf-8")


def test_own_figures_come_from_rounds_of_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    case = {1: Case(3.0, 1, 1), 64: Case(3.0, 64, 1), 2: Case(3.0, 64, 2)}
    method = {method.name: method for method in METHODS if method.preset == "kaldi"}

    def result(name: str, key: int, milliseconds: float) -> Result:
        ns = milliseconds * 1e6
        return Result(method[name], case[key], Timing(ns, ns, ns, ns), 1, 1, None)

    made = [
        result(ours.NAME, 1, 0.1),
        result(ours.NAME, 64, 7.04),
        result(ours.NAME, 2, 3.9111111111),
        result(floor.ADD, 1, 0.08),
    ]
    monkeypatch.setattr("benchmarks.log_mel.figures.measure", lambda *_: made)
    figures, _ = own_figures(METHODS, Effort(1, 1.0), lambda _: None)
    found = {name: round(figure.by_median, 3) for name, figure in figures.items()}
    # Without the floor of fused operations, no figure of it.
    assert found == {"batch": 1.1, "threads": 1.8, "floor_additions": 1.25}


def test_a_quick_run_is_one_case_and_a_full_one_all() -> None:
    quick, full = parse(["--quick"]), parse([])
    assert (quick.seconds, quick.batch, quick.threads) == ([3.0], [1], [1])
    assert (full.seconds, full.batch, full.threads) == ([1.0, 3.0, 10.0], [1, 64], [1, 2])
    assert quick.rounds < full.rounds
    with pytest.raises(SystemExit):
        parse(["--threads", "0"])
