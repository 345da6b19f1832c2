"""What an export found, for the manifest, for a file and for people."""

from __future__ import annotations

from typing import Any

from ._sensitivity import sensitivity_table
from ._variants import Variants


def manifest_accuracy(variants: Variants) -> dict[str, Any]:
    """By modality and precision: the gate's figures, and of INT8 how it came about."""
    found: dict[str, Any] = {}
    for modality, reports in variants.gates.items():
        precisions = {precision: report.to_json() for precision, report in reports.items()}
        if modality in variants.fp16_kept and "fp16" in precisions:
            precisions["fp16"]["fp32_layers"] = list(variants.fp16_kept[modality])
        if modality in variants.int8:
            precisions["int8"] |= variants.int8[modality].to_json()
        found[modality] = {"precisions": precisions}
    return found


def full_report(variants: Variants) -> dict[str, Any]:
    """The same with the size of every model and the loss of every layer, and what could not be made."""
    modalities = manifest_accuracy(variants)
    for modality, report in modalities.items():
        for precision, values in report["precisions"].items():
            values["bytes"] = len(variants.models[precision][modality])
        if modality in variants.int8:
            report["layers"] = [layer.to_json() for layer in variants.int8[modality].layers]
    return {"modalities": modalities, "errors": variants.errors}


def accuracy_table(variants: Variants) -> str:
    """A row per precision and modality, as text for people."""
    rows = [
        ("precision", "modality", "size", "cosine mean", "lowest", "EER", "change", "Cllr", "change", "gate")
    ]
    for precision, models in variants.models.items():
        for modality, model in models.items():
            report = variants.gates[modality].get(precision)
            if report is None:
                continue
            rows.append(
                (
                    precision,
                    modality,
                    f"{len(model) / 2**20:.2f} MiB",
                    f"{min(report.identity.mean_cosine, report.pin.mean_cosine):.6f}",
                    f"{min(report.identity.min_cosine, report.pin.min_cosine):.6f}",
                    f"{100 * report.eer:.2f} %",
                    f"{100 * report.eer_rise:+.2f}",
                    f"{report.cllr:.4f}",
                    f"{report.cllr_rise:+.4f}",
                    "passed" if report.passed else "FAILED",
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 1, 9) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def int8_story(variants: Variants) -> str:
    """How each INT8 encoder came about: ranges that were compared, layers that were spared, fine-tuning."""
    parts = []
    for modality, made in variants.int8.items():
        compared = ", ".join(f"{name} {loss:.6f}" for name, loss in made.range_losses.items())
        parts.append(f"{modality} INT8: ranges by {made.spec.ranges}, of (cosine loss) {compared}")
        parts.append(
            f"{modality} INT8: {made.quantized_layers} of {len(made.layers)} layers quantized"
            + ("; fine-tuned under quantization" if made.tuned else "")
        )
        if made.spec.exempt or not made.gate.passed:
            parts.append(sensitivity_table(made.layers, made.spec.exempt))
    return "\n".join(parts)
