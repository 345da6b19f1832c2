"""`edgepin demo`."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console import Progress, emit_json, exit_codes, say
from .options import FILE, bundle_options, make_finder, open_bundle

if TYPE_CHECKING:
    from .._demo import Attempt, Rate


@click.command()
@click.option(
    "--people",
    type=FILE,
    help="Folder with faces/<name>/… and voices/<name>/… of people to try it on. Default, with the starter: packaged ones.",
)
@click.option("--attempts", default=200, show_default=True, type=click.IntRange(10), help="Of each kind.")
@bundle_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@exit_codes
def demo(
    people: Path | None,
    attempts: int,
    bundle: Path | None,
    allow_unsigned: bool,
    backend: str,
    require: str | None,
    precision: str,
    face_finder: Path | None,
    as_json: bool,
) -> None:
    """Show the whole story: enroll people, then let right ones, forged ones and strangers try.

    Without options it runs on the packaged starter and on packaged rendered people, and needs nothing else.

    Exits with 1 if strangers or half-forged attempts get through more often than the policy promises.
    """
    from .. import _demo
    from .._errors import UsageError
    from .._starter import PEOPLE, is_starter, people_calibration
    from .._store.keys import KeyFile
    from .._verifier import Verifier

    opened = open_bundle(bundle, allow_unsigned=allow_unsigned)
    packaged = bundle is None or is_starter(bundle)
    if people is None and not packaged:
        raise UsageError(
            "the packaged people are drawn, and this bundle's threshold is for others",
            hint="give --people DIR with people like those that it was calibrated on",
        )
    everyone = _demo.list_people(people or PEOPLE)
    calibration = people_calibration(opened) if people is None else None
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="edgepin-demo-") as folder:
        verifier = Verifier.open(
            opened,
            Path(folder) / "enrollments.db",
            calibration=calibration,
            backend=backend,
            require=require,
            precision=precision,
            finder=make_finder(face_finder),
            key=KeyFile(Path(folder) / "store.key"),
        )
        with verifier:
            point = verifier.policy.sets["face+voice"].point
            if point is None:
                raise UsageError(
                    "the bundle's evidence carries no policy", hint="calibrate it on more people"
                )
            say(f"bundle {opened.manifest.name}: {opened.signature}; {verifier.about}")
            say(
                f"policy: a false match rate of at most {point.fmr:g}, its default "
                f"({verifier.fusion.evidence.sets['face+voice'].pairs} pairs of people stand behind it)"
            )
            if calibration is not None:
                say("the people are drawn, and decided about by a calibration on other drawn ones")
            say()
            enrolled = []
            for done, person in enumerate(everyone, start=1):
                result = _demo.enroll(verifier, person)
                if result is None:
                    continue
                enrolled.append(person)
                if len(enrolled) <= 3:
                    say(f"enrolled {person.name} from {result.faces} faces and {result.voices} voices")
                progress("enrolling everyone", done, len(everyone))
            refused, everyone = len(everyone) - len(enrolled), enrolled
            if refused:
                say(f"{refused} more could not be enrolled: their captures do not agree")
            if len(everyone) < 4:
                raise UsageError("fewer than four people could be enrolled", hint="bring a better bundle")
            say()
            shown = [
                _demo.attempt(verifier, kind, everyone[number % 3], everyone[(number + 1) % 3], number)
                if kind != "stranger"
                else _demo.attempt(verifier, kind, everyone[0], everyone[3], number)
                for number, kind in enumerate(_demo.KINDS)
            ]
            if not as_json:
                for line in _table(shown):
                    click.echo(line)
            rates = [
                _demo.rate(kind, list(_demo.attempts(verifier, everyone, kind, attempts, progress)))
                for kind in _demo.KINDS
            ]
    over = [rate for rate in rates if rate.kind != "genuine" and rate.low > point.fmr]
    if as_json:
        emit_json(
            "demo",
            {
                "policy_fmr": point.fmr,
                "people": len(everyone),
                "not_enrolled": refused,
                "attempts": [_attempt_json(one) for one in shown],
                "rates": [dataclasses.asdict(one) for one in rates],
                "within_policy": not over,
            },
        )
    else:
        for line in _rates(rates, over, point.fmr, len(everyone)):
            click.echo(line)
    sys.exit(1 if over else 0)


def _table(shown: list[Attempt]) -> list[str]:
    from .._demo import KINDS

    lines = [f"{'attempt':29}{'decision':10}{'LLR':>7}  {'ms by stage':61} reason"]
    for one in shown:
        if one.decision is None:
            lines.append(f"{KINDS[one.kind]:29}{'refused':10}{'':>7}  {'':61} {one.refusal}")
            continue
        times: dict[str, float] = {}
        for stage, ms in one.decision.timings.items():
            times[stage.replace("_", " ").replace("find face", "find")] = ms
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in times.items() if stage != "quality")
        reasons = ", ".join(reason.code for reason in one.decision.reasons)
        answer = "accepted" if one.accepted else "rejected"
        lines.append(f"{KINDS[one.kind]:29}{answer:10}{one.decision.llr or 0:+7.1f}  {stages:61} {reasons}")
    return lines


def _rates(rates: list[Rate], over: list[Rate], fmr: float, people: int) -> list[str]:
    from .._demo import KINDS

    lines = [
        "",
        f"{rates[0].attempts} attempts of each kind among {people} people whom nothing was trained or calibrated on:",
        f"{'attempt':29}{'wrong':>9}{'rate':>9}   95 % interval",
    ]
    for one in rates:
        what = "not accepted" if one.kind == "genuine" else "accepted"
        lines.append(
            f"{KINDS[one.kind]:29}{one.wrong:>4}/{one.attempts:<4}{100 * one.wrong / one.attempts:>8.1f}%"
            f"   {100 * one.low:.2f} to {100 * one.high:.2f} % {what}"
            + (f", {one.refused} of them captures refused" if one.kind == "genuine" and one.refused else "")
        )
    lines.append(
        f"above the policy's {100 * fmr:g} %: {', '.join(KINDS[one.kind] for one in over)}"
        if over
        else f"no kind of impostor is shown to get through more often than the policy's {100 * fmr:g} %"
    )
    return lines


def _attempt_json(one: Attempt) -> dict[str, object]:
    decision = None if one.decision is None else one.decision.to_json()
    return {
        "kind": one.kind,
        "target": one.target,
        "accepted": one.accepted,
        "refusal": one.refusal,
        "decision": decision,
    }
