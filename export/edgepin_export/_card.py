"""The model card: what a person should know before using a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgepin._bundle.manifest import Manifest
from edgepin._decision.fusion import FACE_AND_VOICE, Fusion

from ._foreign_card import foreign_lines


def write_card(manifest: Manifest, fusion: Fusion, missing: Mapping[str, Sequence[str]]) -> str:
    """Markdown, from what the manifest holds; `missing` are the precisions that it lacks, and why."""
    training, evidence = manifest.training, manifest.evidence
    lines = [
        f"# {manifest.name}",
        "",
        f"A face and a voice encoder with a calibrated decision, made by {manifest.created_by}.",
        "",
        f"**Purpose**: {manifest.usage['purpose']}.",
        f"**Restrictions**: {manifest.usage['restrictions']}.",
        "",
        "## Training",
        "",
        *(foreign_lines(training) if "foreign" in training else _training_lines(manifest)),
        "",
        "## Accuracy on the calibration people",
        "",
        "They were not trained on. EER over all pairs of their captures. FP32 is held against the trained encoder, every "
        "other form against FP32: mean and lowest cosine of the same capture's embeddings, and the rise of the cost of "
        "its log-likelihood ratios (Cllr).",
        "",
        "| modality | form | EER | mean cosine | lowest cosine | Cllr rise | |",
        "|---|---|---|---|---|---|---|",
    ]
    for modality, report in manifest.accuracy.items():
        for precision, values in report["precisions"].items():
            cosine = values["identity"]
            lines.append(
                f"| {modality} | {precision} | {100 * values['eer']:.2f} % | {cosine['mean_cosine']:.5f} "
                f"| {cosine['min_cosine']:.5f} | {values['cllr_rise']:+.4f} bits | {_remark(values)} |"
            )
    for precision, reasons in missing.items():
        lines += ["", f"**This bundle has no {precision} form**: {'; '.join(reasons)}."]
    lines += [
        "",
        "## Evidence for the decision",
        "",
        f"{evidence['people']} people ({evidence['origin']}), {evidence['subject_pairs']} distinct pairs of them. "
        "By the rule of three no lower false match rate than 3 over that number can be promised.",
    ]
    for modality, alone in evidence.get("alone", {}).items():
        lines.append(
            f"Evidence for deciding by the {modality} alone: {alone['subject_pairs']} pairs of {alone['people']} people."
        )
    if evidence["chimeric"]:
        lines.append(
            "These people are **chimeric**: one person's face was given another's voice. That tells how the "
            "decision behaves, and nothing about whether faces and voices go together."
        )
    usual = fusion.evidence.sets[FACE_AND_VOICE].usual
    if usual is not None:
        lines += [
            "",
            f"Default policy: a false match rate of at most {usual.fmr:g} for the worst kind of impostor; "
            f"at that, {100 * usual.fnmr:.1f} % of genuine attempts on the calibration people are rejected.",
        ]
    return "\n".join(lines) + "\n"


def _training_lines(manifest: Manifest) -> list[str]:
    corpus = manifest.training["corpus"]
    faces, voices = corpus["faces"], corpus["voices"]
    return [
        f"{faces['captures']} faces of {faces['people']} people and {voices['captures']} recordings "
        f"({voices['minutes']} minutes) of {voices['people']} speakers, {manifest.training['steps']} steps.",
        f"{corpus['pairs']} people had both."
        if manifest.cross_modal
        else "No face was paired with a voice: cross-modal scores carry nothing and are not used.",
    ]


def _remark(values: Mapping[str, Any]) -> str:
    if not values["passed"]:
        return "failed, left out"
    spared = len(values.get("exempt_layers", ()))
    remarks = [f"{spared} layers in floating point"] if spared else []
    return "; ".join([*remarks, "fine-tuned"] if values.get("fine_tuned") else remarks)
