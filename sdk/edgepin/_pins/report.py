"""The tables in words, and the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._errors import EnvironmentFault
from .._safe_files import write_atomic
from .chart import line_chart


def tables(found: dict[str, Any]) -> Iterator[str]:
    """Lines for a person: every figure in percent with its interval."""
    for kind, strata in found["verification"].items():
        yield f"verification, {kind}"
        for stratum, row in strata.items():
            derived = "" if row["source"] == "list" else "  (derived)"
            yield f"  {stratum:8} AUC {_show(row['auc'])}   EER {_show(row['eer'])}{derived}"
    for kind, directions in found["matching"].items():
        for direction, row in directions.items():
            yield f"matching, {direction}, {kind}"
            for ways, figure in row["accuracy"].items():
                yield f"  1:{ways:6} {_show(figure)}"
    for direction, row in found["retrieval"].items():
        yield f"retrieval, {direction}: mAP {_show(row['map'])}, chance {100 * row['chance']:.2f}"
    for direction, shots in found["naming"].items():
        for count, row in shots.items():
            if row is not None:
                chance = f"chance {100 * row['chance']:.1f}"
                yield f"naming, {direction}, {count} each: {_show(row['accuracy'])}, {chance}"
    for modality, row in found["clustering"].items():
        yield f"clustering, {modality}: NMI {_show(row['nmi'])}, purity {_show(row['purity'])}"


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes `roc_<set>.svg` and `matching.svg`, as far as there is something to draw; the paths."""
    pictures = {
        f"roc_{kind}.svg": line_chart(
            f"Is this the voice of this face? {kind}",
            "impostor pairs accepted",
            "genuine pairs accepted",
            curves,
            x_range=(0.0, 1.0),
            y_range=(0.0, 1.0),
        )
        for kind, curves in found["roc"].items()
    }
    lines = {
        f"{direction} {kind}": [(float(ways), figure["value"]) for ways, figure in row["accuracy"].items()]
        for kind, directions in found["matching"].items()
        for direction, row in directions.items()
    }
    if lines:
        widest = max(x for line in lines.values() for x, _ in line)
        chance = [(float(ways), 1 / ways) for ways in range(2, int(widest) + 1)]
        pictures["matching.svg"] = line_chart(
            "Which of N is it?",
            "candidates",
            "right",
            {**lines, "chance": chance},
            x_range=(2.0, max(widest, 3.0)),
            y_range=(0.0, 1.0),
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"cannot make the folder {folder}: {error.strerror}") from error
    for name, text in pictures.items():
        write_atomic(folder / name, [text.encode()])
    return [folder / name for name in pictures]


def _show(figure: dict[str, float]) -> str:
    return f"{100 * figure['value']:5.1f} ({100 * figure['low']:.1f}-{100 * figure['high']:.1f})"
