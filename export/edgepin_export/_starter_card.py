"""What the starter's card says beyond any bundle's: its figures on other people, its origin, what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RESTRICTIONS = (
    "for evaluation, not for a production door: its faces are of research-only origin, nothing here tells a photo or "
    "a recording from a person, and few people stand behind its decision"
)
NOTICE = (
    "the packaged starter is for evaluation, not for a production door: it was trained on faces for research use, and "
    "few people stand behind its decision (edgepin doctor)"
)
USAGE = {
    "purpose": "trying EdgePIN and evaluating it, before there is a bundle of your own",
    "restrictions": RESTRICTIONS,
    "notice": NOTICE,
}

Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By modality (`voice`, `face`, `fused`) and precision, what `measure_modality` and `measure_fused` found."""

_CARD = """\

## Figures on people who are in no data above

Nothing was chosen by these. Voices: the first {seconds:g} s of clips of {speakers} speakers. Faces: tight crops of {people}
people. Fused: the speakers, each with somebody else's face of the same sex (**chimeric**: this measures the decision, and not
whether faces and voices go together). Impostors are strangers where no other kind is named. Cllr, in bits: what the
calibration on other people costs on these, and the least that it could.

| | form | EER | Cllr | lowest Cllr | genuine, impostor trials |
|---|---|---|---|---|---|
{rows}

EER by kind of impostor, of the joint decision, and of two sums that fear strangers alone: of both modalities' log-likelihood
ratios, and of their cosines, each in the deviations of the calibration's:

| form | | stranger | right face, another's voice | right voice, another's face |
|---|---|---|---|---|
{kinds}

{policy}

By sex, as the corpora give it, within each group, with 95 % intervals by bootstrap over people. Of so few people these are wide,
and still too narrow. The face trials do not say it.

| | group | people | EER |
|---|---|---|---|
{groups}

## How it was made

    {command}

Distilled from {face} (faces) and {voice} (voices), which only training
needs: none of their weights are here. Rendered people were a part of each batch.

## What it must not be used for

- Access to anything that matters. Its training faces may be used for research; a photo, a screen or a recording is not told
  from a person; and its false match rate was measured on few people.
- Searching for people (1:N), in public or anywhere else.
- Saying anything of a person but whether they are the enrolled one: not their sex, age, origin, health or mood.
- Anybody who did not agree to it, and children: there are hardly any among those it learned from.

It treats groups of people differently, as the figures show, and nothing is known of those it never met: its faces (LFWcrop) are
mostly of public figures in news photographs of the early 2000s, its voices (LibriSpeech) read English audiobooks. Calibrate on
your own people, and look at their groups (`edgepin calibrate`, `edgepin evaluate verification --groups`).
"""


def starter_sections(figures: Figures, *, seconds: float, command: str, face: str, voice: str) -> str:
    """Markdown, to follow the card of the bundle.

    `seconds`: what was taken of each voice; `face`, `voice`: the teachers; `command`: what made the encoders.
    """
    return _CARD.format(
        seconds=seconds,
        speakers=next(iter(figures["voice"].values()))["people"],
        people=next(iter(figures["face"].values()))["people"],
        rows="\n".join(_rows(figures)),
        kinds="\n".join(_kinds(figures)),
        policy=_policy(figures),
        groups="\n".join(_groups(figures)),
        command=command,
        face=face,
        voice=voice,
    )


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"


def _rows(figures: Figures) -> list[str]:
    return [
        f"| {modality} | {precision} | {_percent(one['eer'])} | {one['cllr']:.3f} | {one['min_cllr']:.3f} "
        f"| {one['genuine']}, {one['impostor']} |"
        for modality, forms in figures.items()
        for precision, one in forms.items()
    ]


def _kinds(figures: Figures) -> list[str]:
    lines = []
    for precision, one in figures["fused"].items():
        for name, kinds in (
            ("joint", one["eer_by_kind"]),
            ("plain sum", one["plain_sum"]["eer_by_kind"]),
            ("sum of standardized cosines", one["standardized_sum"]["eer_by_kind"]),
        ):
            rates = " | ".join(_percent(kinds[kind]) for kind in ("stranger", "other_voice", "other_face"))
            lines.append(f"| {precision} | {name} | {rates} |")
    return lines


def _policy(figures: Figures) -> str:
    policy = next(iter(figures["fused"].values()))["default_policy"]
    if policy is None:
        return "The evidence carries no policy."
    accepted = ", ".join(
        f"{kind.replace('_', ' ')} {_percent(rate)}" for kind, rate in policy["false_match"].items()
    )
    return (
        f"The default policy (a false match rate of at most {policy['fmr']:g}) rejected "
        f"{_percent(policy['false_non_match'])} of these genuine attempts, and accepted of impostors: {accepted}."
    )


def _groups(figures: Figures) -> list[str]:
    lines = []
    for modality, forms in figures.items():
        found = next(iter(forms.values())).get("groups")
        for row in [] if found is None else found["rates"]:
            if len(row["groups"]) == 1 and row["eer"] is not None:
                rate, low, high = (f"{100 * row['eer'][name]:.1f}" for name in ("rate", "low", "high"))
                lines.append(
                    f"| {modality} | {row['groups'][0]} | {row['people']} | {rate} % ({low} to {high}) |"
                )
    return lines
