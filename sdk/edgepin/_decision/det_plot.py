"""A report of a calibration for people: tables and a DET plot, one HTML file with nothing to load.

The plot is written as SVG here: a device has no plotting package, and needs none for two axes and some lines.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

_NORMAL = NormalDist()
_SIZE, _MARGIN = 480, 56
_TICKS = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5)
_LOW, _HIGH = 0.00005, 0.6
_COLORS = ("#0b63a5", "#c2410c", "#3f7d20", "#6b4fa0")

Curve = Sequence[tuple[float, float, float]]


def det_svg(curves: Mapping[str, Curve], *, title: str = "") -> str:
    """A DET plot as SVG: false match rate across, false non-match rate up, both on normal-deviate axes (Martin et
    al. 1997, Eurospeech). `curves`: by name rows of threshold, FMR, FNMR. Rates beyond the axes lie on their edge.
    """
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SIZE} {_SIZE}" width="{_SIZE}" height="{_SIZE}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{html.escape(title or "DET plot", quote=True)}">',
        f'<rect width="{_SIZE}" height="{_SIZE}" fill="white"/>',
    ]
    for tick in _TICKS:
        x, y = _across(tick), _up(tick)
        label = f"{100 * tick:g}"
        parts += [
            f'<path d="M{x:.1f} {_MARGIN}V{_SIZE - _MARGIN}M{_MARGIN} {y:.1f}H{_SIZE - _MARGIN}" stroke="#ddd"/>',
            f'<text x="{x:.1f}" y="{_SIZE - _MARGIN + 16}" text-anchor="middle">{label}</text>',
            f'<text x="{_MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>',
        ]
    edge = _SIZE - _MARGIN
    parts.append(
        f'<path d="M{_MARGIN} {edge}L{edge} {_MARGIN}" stroke="#ccc" stroke-dasharray="3 3"/>'
        f'<text x="{_SIZE / 2}" y="{_SIZE - 14}" text-anchor="middle">false match rate of the worst kind, %</text>'
        f'<text transform="translate(16 {_SIZE / 2}) rotate(-90)" text-anchor="middle">false non-match rate, %</text>'
    )
    if title:
        parts.append(
            f'<text x="{_SIZE / 2}" y="22" text-anchor="middle" font-size="14">{html.escape(title)}</text>'
        )
    for number, (name, rows) in enumerate(curves.items()):
        color = _COLORS[number % len(_COLORS)]
        points: list[str] = []
        for _, fmr, fnmr in rows:
            point = f"{_across(fmr):.1f},{_up(fnmr):.1f}"
            if not points or points[-1] != point:
                points.append(point)
        y = _MARGIN + 16 + 18 * number
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="2"/>'
            f'<path d="M{edge - 120} {y}h20" stroke="{color}" stroke-width="2"/>'
            f'<text x="{edge - 94}" y="{y + 4}">{html.escape(name)}</text>'
        )
    return "".join([*parts, "</svg>"])


def report_html(report: Mapping[str, Any]) -> str:
    """The report of `edgepin calibrate` as one HTML page; `report` is what its JSON holds."""
    sections = []
    for name, after in report["after"].items():
        before = report["before"][name]
        rows = [
            (
                "policy: FMR at most",
                *(_cell(side["point"] and side["point"]["fmr"]) for side in (before, after)),
            ),
            ("FNMR there", _cell(before["fnmr"]), _cell(after["fnmr"])),
            *(
                (f"FMR there: {kind}", _cell(before["fmr"][kind]), _cell(after["fmr"][kind]))
                for kind in after["fmr"]
            ),
            ("EER", _cell(before["eer"]), _cell(after["eer"])),
            ("minDCF (p 0.01)", _cell(before["min_dcf"], 1), _cell(after["min_dcf"], 1)),
            ("Cllr, bits", _cell(before["cllr"], 1), _cell(after["cllr"], 1)),
            ("lowest Cllr, bits", _cell(before["min_cllr"], 1), _cell(after["min_cllr"], 1)),
        ]
        table = "".join(f"<tr><th>{a}</th><td>{b}</td><td>{c}</td></tr>" for a, b, c in rows)
        sections.append(
            f"<h2>{html.escape(name)}</h2><p>{after['people']} people, {after['genuine']} genuine and "
            f"{after['impostor']} impostor trials</p><table><tr><th></th><th>bundle</th><th>site</th></tr>{table}"
            f"</table>{det_svg({'bundle': before['det'], 'site': after['det']}, title=name)}"
        )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>EdgePIN site calibration</title>'
        "<style>body{font-family:sans-serif;max-width:60em;margin:2em auto}table{border-collapse:collapse}"
        "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left}</style>"
        f"<h1>Site calibration</h1><p>Bundle <code>{html.escape(str(report['bundle']))}</code>. Rates with 95 % "
        "intervals by resampling people. The site's figures are cross-fitted: each trial is scored by a fusion that was "
        f"fitted without either person.</p>{''.join(sections)}</html>\n"
    )


def _cell(value: Any, scale: int = 100) -> str:
    unit, digits = (" %", 3) if scale == 100 else ("", 4)
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        rate, low, high = (f"{scale * value[key]:.{digits}f}" for key in ("rate", "low", "high"))
        return f"{rate}{unit} ({low} to {high})"
    return f"{scale * value:.{digits}f}{unit}"


def _place(rate: float) -> float:
    low, high = _NORMAL.inv_cdf(_LOW), _NORMAL.inv_cdf(_HIGH)
    return (_NORMAL.inv_cdf(min(max(rate, _LOW), _HIGH)) - low) / (high - low)


def _across(rate: float) -> float:
    return _MARGIN + _place(rate) * (_SIZE - 2 * _MARGIN)


def _up(rate: float) -> float:
    return _SIZE - _across(rate)
