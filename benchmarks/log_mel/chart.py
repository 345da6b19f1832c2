"""One picture of one case: how many times as long as ours the others take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.log_mel import floor, ours
from benchmarks.log_mel.interleaved import Result
from benchmarks.log_mel.machine import describe_machine
from benchmarks.log_mel.method import Case
from benchmarks.log_mel.report import Report
from benchmarks.log_mel.summary import ratio

_TIMES = "\N{MULTIPLICATION SIGN}"
_OURS, _OUR_OTHERS, _PEERS, _TEXT, _FLOOR = "#0b6e99", "#8fc1d4", "#b9bcc1", "#24292f", "#c2410c"


def draw_chart(report: Report, path: Path) -> None:
    """Write the chart of 3 s, batch 1, one thread (or of the first case measured) as SVG, PNG or PDF.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is nothing to draw.
    """
    cases = report.cases()
    if not cases:
        raise ValueError("there are no results to draw")
    case = Case(3.0, 1, 1) if Case(3.0, 1, 1) in cases else cases[0]
    rows = [
        (row, ratio(row.timing, own))
        for row in report.results
        if row.case == case and (own := report.ours(row)) and _is_drawn(row)
    ]
    rows.sort(key=lambda row: row[1], reverse=True)

    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "edgepin"  # the same picture has the same bytes
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9.5, 1.6 + 0.31 * len(rows)), layout="constrained")
    axes.barh(
        range(len(rows)),
        [times - 1e-3 for _, times in rows],
        color=[_color(row) for row, _ in rows],
        height=0.72,
    )
    _label_bars(axes, rows)
    _mark_floor(axes, report, case, len(rows))
    axes.set_xscale("log")
    axes.set_xlim(0.5, 3.2 * max(times for _, times in rows))
    axes.set_ylim(-0.6, len(rows) - 0.1)
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200) if tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}{_TIMES}" for tick in ticks])
    axes.minorticks_off()
    axes.tick_params(colors=_TEXT, length=0)
    axes.grid(axis="x", color="#e4e6e9", zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    rounds = rows[0][0].rounds
    axes.set_xlabel(
        f"times {ours.NAME}'s time for the same log-mel (preset kaldi, or the one in brackets), logarithmic\n"
        f"medians of {rounds} interleaved rounds on {describe_machine()['processor']}",
        color=_TEXT,
        fontsize=9,
    )
    figure.suptitle(f"Log-mel of speech: {case}", x=0.02, ha="left", color=_TEXT, fontsize=13, weight="bold")
    metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, dpi=150, metadata=metadata)
    pyplot.close(figure)


def _is_drawn(row: Result) -> bool:
    # Ours with other presets is what their rows are divided by: 1 by definition.
    is_floor = row.method.name in (floor.ADD, floor.FMA)
    return not is_floor and (row.method.name != ours.NAME or row.method.preset == "kaldi")


def _color(row: Result) -> str:
    if row.method.name == ours.NAME:
        return _OURS
    return _OUR_OTHERS if row.method.name.startswith(f"{ours.NAME} ") else _PEERS


def _label_bars(axes: Any, rows: list[tuple[Result, float]]) -> None:
    axes.set_yticks(range(len(rows)), [row.method.label for row, _ in rows], fontsize=9)
    for place, (row, times) in enumerate(rows):
        text = f" {times:.1f}{_TIMES}  {_time(row.timing.median)}"
        axes.text(times, place, text, va="center", ha="left", color=_TEXT, fontsize=8.5)


def _time(nanoseconds: float) -> str:
    if nanoseconds < 0.9995e6:
        return f"{nanoseconds / 1e3:.0f} µs"
    return f"{nanoseconds / 1e6:.3g} ms"


def _mark_floor(axes: Any, report: Report, case: Case, top: int) -> None:
    for row in report.results:
        own = report.ours(row)
        if row.case == case and row.method.name == floor.ADD and own:
            at = ratio(row.timing, own)
            axes.axvline(at, color=_FLOOR, linestyle="--", linewidth=1.2)
            axes.text(
                at,
                top - 0.35,
                f"floor of additions {at:.2f}{_TIMES} ",
                color=_FLOOR,
                fontsize=8.5,
                ha="right",
                va="center",
            )
