"""The model card: what a person should know before using a bundle."""

from __future__ import annotations

from edgepin._fusion import FACE_AND_VOICE, Fusion
from edgepin._manifest import Manifest


def write_card(manifest: Manifest, fusion: Fusion) -> str:
    """Markdown, from what the manifest holds."""
    training, evidence = manifest.training, manifest.evidence
    faces, voices = training["corpus"]["faces"], training["corpus"]["voices"]
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
        f"{faces['captures']} faces of {faces['people']} people and {voices['captures']} recordings "
        f"({voices['minutes']} minutes) of {voices['people']} speakers, {training['steps']} steps.",
        f"{training['corpus']['pairs']} people had both."
        if manifest.cross_modal
        else "No face was paired with a voice: cross-modal scores carry nothing and are not used.",
        "",
        "## Accuracy on the calibration people",
        "",
        "They were not trained on. EER over all pairs of their captures; cosine to the trained encoder's identity embedding.",
        "",
        "| modality | precision | EER | mean cosine | lowest cosine |",
        "|---|---|---|---|---|",
    ]
    for modality, report in manifest.accuracy.items():
        for precision, values in report["precisions"].items():
            cosine = values["identity"]
            lines.append(
                f"| {modality} | {precision} | {100 * values['eer']:.2f} % | {cosine['mean_cosine']:.5f} "
                f"| {cosine['min_cosine']:.5f} |"
            )
    lines += [
        "",
        "## Evidence for the decision",
        "",
        f"{evidence['people']} people ({evidence['origin']}), {evidence['subject_pairs']} distinct pairs of them. "
        "By the rule of three no lower false match rate than 3 over that number can be promised.",
    ]
    if evidence["chimeric"]:
        lines.append(
            "These people are **chimeric**: one person's face was given another's voice. That tells how the "
            "decision behaves, and nothing about whether faces and voices go together."
        )
    strictest = fusion.evidence.sets[FACE_AND_VOICE].strictest
    if strictest is not None:
        lines += [
            "",
            f"Default policy: a false match rate of at most {strictest.fmr:g} for the worst kind of impostor; "
            f"at that, {100 * strictest.fnmr:.1f} % of genuine attempts on the calibration people are rejected.",
        ]
    return "\n".join(lines) + "\n"
