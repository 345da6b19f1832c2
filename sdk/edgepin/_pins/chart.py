"""A line chart as SVG, with nothing but text: for machines without a plotting package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 420, 64, 40, 170, 52
_COLORS = ("#0b6e99", "#c2410c", "#2f7d32", "#6d28d9", "#b45309", "#0f766e", "#9d174d", "#475569")
Points = Sequence[tuple[float, float]]


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    lines: Mapping[str, Points],
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> str:
    """An SVG document with one line per name, the name beside it in its color. Points outside are not cut off."""
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + wide * (x - x_range[0]) / (x_range[1] - x_range[0]),
            _TOP + high * (1 - (y - y_range[0]) / (y_range[1] - y_range[0])),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#24292f">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
        f'<text x="{_LEFT + wide / 2}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(16 {_TOP + high / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>',
    ]
    for step in range(6):
        x, y = place(
            x_range[0] + (x_range[1] - x_range[0]) * step / 5,
            y_range[0] + (y_range[1] - y_range[0]) * step / 5,
        )
        parts += [
            f'<path d="M{_LEFT} {y:.1f}h{wide}M{x:.1f} {_TOP}v{high}" stroke="#e4e6e9"/>',
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{y_range[0] + (y_range[1] - y_range[0]) * step / 5:.3g}</text>",
            f'<text x="{x:.1f}" y="{_TOP + high + 18}" text-anchor="middle">'
            f"{x_range[0] + (x_range[1] - x_range[0]) * step / 5:.3g}</text>",
        ]
    for number, (name, points) in enumerate(lines.items()):
        color = _COLORS[number % len(_COLORS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts += [
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>',
            f'<text x="{_LEFT + wide + 10}" y="{_TOP + 14 + 18 * number}" fill="{color}">{escape(name)}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])
