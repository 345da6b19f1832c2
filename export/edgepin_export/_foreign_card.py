"""What the model card says of encoders that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def foreign_lines(training: Mapping[str, Any]) -> list[str]:
    """The section on training, as Markdown lines, from what the manifest holds."""
    lines = ["What came as a file was trained elsewhere; of that, nothing is known here.", ""]
    for modality, found in training["foreign"].items():
        if found["run"]:
            corpus = training["run"]["corpus"][f"{modality}s"]
            lines.append(
                f"- {modality}: a run of EdgePIN's own, {corpus['captures']} captures of {corpus['people']} people, "
                f"{training['run']['steps']} steps; {found['dim']} dimensions."
            )
            continue
        projection = found["projection"]
        lines.append(
            f"- {modality}: a file with SHA-256 {found['sha256']}, {found['dim']} dimensions, "
            + {
                "none": "taken as they are.",
                "zeros": "padded with zeros to 256.",
                "principal directions": "projected on 256 principal directions: EER "
                f"{100 * found['eer']:.2f} % before and {100 * projection['eer']:.2f} % after.",
            }[projection["kind"]]
        )
    fitted = training["fitted_on"]
    lines += [
        "",
        f"INT8 ranges and projections were fitted on {fitted['faces']['captures']} faces of "
        f"{fitted['faces']['people']} people and {fitted['voices']['captures']} voices of "
        f"{fitted['voices']['people']}.",
    ]
    pins = training["pins"]
    if "none" in pins:
        lines.append(
            f"**There is no shared space**: {pins['none']}. A `pin` is a copy of its `identity`, and cross-modal scores "
            "are not used."
        )
    else:
        lines.append(
            f"The pins are canonical correlations fitted on {pins['pairs']} people with both; face against voice has an "
            f"EER of {100 * pins['cross_validated_eer']:.1f} % on people left out in turn."
        )
    return lines
