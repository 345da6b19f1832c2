"""`edgepin calibrate`: the fusion and its evidence, from a site's own people."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._errors import UsageError
from .console import Progress, emit_json, exit_codes, say
from .options import FILE, bundle_options, make_finder, open_bundle

if TYPE_CHECKING:
    from .._bundle.bundle import Bundle
    from .._decision.draw import CapturedPeople
    from .._decision.trial_set import ModalityTrials, TrialSet
    from .._pipeline import Pipeline


@click.command()
@click.option("--data", type=FILE, metavar="DIR", help="Captures: faces/<person>/…, voices/<person>/….")
@click.option(
    "--attempts", type=FILE, metavar="FILE.tsv", help="Recorded scores of attempts, and who made them."
)
@click.option("--out", required=True, type=FILE, metavar="SITE.cal", help="Where to write the calibration.")
@click.option(
    "--report", type=FILE, metavar="R.html|R.json", help="Write rates before and after, with DET points."
)
@click.option(
    "--max-attempts", type=click.IntRange(1, 5), default=3, show_default=True, help="The longest sessions."
)
@click.option("--face-cropped", is_flag=True, help="The images are face crops already.")
@click.option("--key", type=FILE, help="The private key that signs it. Default: this machine's.")
@bundle_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@exit_codes
def calibrate(
    data: Path | None,
    attempts: Path | None,
    out: Path,
    report: Path | None,
    max_attempts: int,
    face_cropped: bool,
    key: Path | None,
    bundle: Path | None,
    allow_unsigned: bool,
    backend: str,
    require: str | None,
    precision: str,
    face_finder: Path | None,
    as_json: bool,
) -> None:
    """Fit the decision to a site: its people, cameras and microphones.

    Each pair of people counts as evidence, so more people carry a lower false match rate. At least ten need two
    faces and two voices each; further people with one of them are evidence for that one alone.

    \b
    Example:
      edgepin calibrate --bundle site.pin --data people --out site.cal --report report.html
    """
    from .._bundle.signing import SigningKey
    from .._decision.calibration import calibrate_measured
    from .._decision.comparison import apply_fusion, describe
    from .._decision.fusion import Fusion
    from .._decision.site import SiteCalibration

    if data is None and attempts is None:
        raise UsageError("nothing to calibrate on", hint="give --data, --attempts, or both")
    if report is not None and report.suffix.lower() not in (".html", ".json"):
        raise UsageError(f"{report}: a report is .html or .json")
    for path in (out, report):
        if path is not None and not os.path.isdir(path.parent):
            raise UsageError(f"there is no folder {path.parent}")
    opened = open_bundle(bundle, allow_unsigned=allow_unsigned)
    signing = SigningKey.load(key) if key is not None else SigningKey.load_or_create()
    names: tuple[str, ...] = ()
    parts: list[TrialSet] = []
    alone: dict[str, list[ModalityTrials]] = {"face": [], "voice": []}
    refused: dict[str, int] = {}
    if data is not None:
        from .._decision.draw import draw_people
        from .._pipeline import make_pipeline
        from .._runtime.backends import open_runtime

        people = list_people(data)
        chosen = open_runtime(opened, backend=backend, require=require, precision=precision)
        say(chosen.about)
        pipeline = make_pipeline(opened, chosen.runtime, make_finder(face_finder))
        names = tuple(sorted({*people["face"], *people["voice"]}))
        captured, refused = embed(pipeline, people, names, cropped=face_cropped)
        drawn, more = draw_people(captured["face"], captured["voice"], chimeric=False, attempts=max_attempts)
        parts += [drawn] if drawn is not None else []
        for modality, trials in more.items():
            alone[modality].append(trials)
    if attempts is not None:
        from .._decision.recorded import read_attempts

        recorded = read_attempts(attempts, names)
        names = recorded.names
        parts += [_apart(recorded.joint)] if recorded.joint is not None else []
        for modality, trials in recorded.alone.items():
            alone[modality].append(_apart(trials))
    if not parts:
        raise UsageError(
            "there are no attempts with face and voice to calibrate on",
            hint="at least ten people need two usable faces and two usable voices each",
        )
    say("fitting")
    joint, single = _joined(parts), {name: _joined(sets) for name, sets in alone.items() if sets}
    fusion, measured = calibrate_measured(
        joint, cross_modal=opened.manifest.cross_modal, alone=single, max_attempts=max_attempts
    )
    result = _result(opened, fusion, len(names), refused)
    say("measuring")
    before = describe(own := Fusion.from_json(opened.manifest.fusion), apply_fusion(own, joint, single))
    sides = {"before": before, "after": describe(fusion, measured)}
    made = SiteCalibration.of(opened, fusion)
    if report is not None:
        _write_report(report, {**result, **sides})
    made.write(out, signing)
    shown = {
        side: {name: {k: v for k, v in table.items() if k != "det"} for name, table in tables.items()}
        for side, tables in sides.items()
    }
    result = {
        **result,
        "out": str(out),
        "report": None if report is None else str(report),
        "digest": made.digest,
        **shown,
    }
    if as_json:
        emit_json("calibration", result)
    else:
        _tell(result)


def list_people(data: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """By modality and person the names of the captures under `data/faces` and `data/voices`."""
    from .._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES, list_captures

    people: dict[str, dict[str, tuple[str, ...]]] = {}
    for modality, suffixes in (("face", IMAGE_SUFFIXES), ("voice", SOUND_SUFFIXES)):
        root = data / f"{modality}s"
        if not os.path.isdir(root):
            raise UsageError(
                f"{data} has no folder {modality}s", hint="it needs faces/<person>/… and voices/<person>/…"
            )
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
        people[modality] = {name: list_captures(root, name, suffixes) for name in folders}
        people[modality] = {name: files for name, files in people[modality].items() if files}
        people[modality] = {
            name: tuple(str(data / f"{modality}s" / file) for file in files)
            for name, files in people[modality].items()
        }
    return people


def embed(
    pipeline: Pipeline,
    people: dict[str, dict[str, tuple[str, ...]]],
    names: tuple[str, ...],
    *,
    cropped: bool,
) -> tuple[dict[str, CapturedPeople], dict[str, int]]:
    """The captures that the quality gate lets pass, embedded, and how many were refused by verdict."""
    from collections import Counter

    import numpy as np

    from .._decision.draw import CapturedPeople
    from .._measurement import Captures

    number = {name: index for index, name in enumerate(names)}
    encode = Captures(pipeline, cropped=cropped, gate=True, report=Progress())
    captured, refused = {}, Counter[str]()
    for modality, owners in people.items():
        files = [(name, path) for name, paths in owners.items() for path in paths]
        if not files:
            raise UsageError(f"there are no {modality}s to calibrate on")
        paths = {path: Path(path) for _, path in files}
        made = encode.embed(modality, paths)
        usable = made.usable
        owner = np.array([number[name] for name, _ in files], np.int64)
        captured[modality] = CapturedPeople(made.identity[usable], made.pin[usable], owner[usable])
        refused.update(made.refused.values())
    return captured, dict(refused)


def _apart(trials: Any) -> Any:
    """Recorded trials beside drawn ones: their sessions are not those enrollments."""
    return replace(trials, enrollment=-1 - trials.enrollment)


def _joined(parts: list[Any]) -> Any:
    import numpy as np

    first = parts[0]
    arrays = [name for name, value in vars(first).items() if hasattr(value, "shape")]
    return replace(
        first, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    )


def _result(bundle: Bundle, fusion: Any, people: int, refused: dict[str, int]) -> dict[str, Any]:
    usual = {name: evidence.usual for name, evidence in fusion.evidence.sets.items()}
    return {
        "bundle": bundle.digest,
        "people": people,
        "refused": refused,
        "subject_pairs": {name: evidence.pairs for name, evidence in fusion.evidence.sets.items()},
        "default_fmr": {name: None if point is None else point.fmr for name, point in usual.items()},
        "max_attempts": {name: evidence.max_attempts for name, evidence in fusion.evidence.sessions.items()},
    }


def _write_report(path: Path, values: dict[str, Any]) -> None:
    from .._decision.det_plot import report_html
    from .._safe_files import write_atomic

    if path.suffix.lower() == ".html":
        text = report_html(values)
    else:
        text = json.dumps({"schema": "edgepin.calibration-report/1", **values}, ensure_ascii=False) + "\n"
    write_atomic(path, [text.encode()])


def _tell(result: dict[str, Any]) -> None:
    click.echo(f"{result['out']}: {result['people']} people")
    for name, after in result["after"].items():
        before = result["before"][name]
        fmr = result["default_fmr"][name]
        if fmr is None:
            promise = f"{result['subject_pairs'][name]} pairs of people carry no false match rate"
        else:
            promise = (
                f"false match rate at most {fmr:g} ({result['subject_pairs'][name]} pairs), rejects "
                f"{100 * after['fnmr']['rate']:.1f} % of right attempts "
                f"({100 * after['fnmr']['low']:.1f} to {100 * after['fnmr']['high']:.1f})"
            )
        say(
            f"{name}: {promise}; Cllr {before['cllr']['rate']:.3f} -> {after['cllr']['rate']:.3f} bits, EER "
            f"{100 * before['eer']['rate']:.1f} -> {100 * after['eer']['rate']:.1f} %, "
            f"sessions of up to {result['max_attempts'][name]}"
        )
    if result["refused"]:
        say(
            "refused captures: "
            + ", ".join(f"{code} {count}" for code, count in sorted(result["refused"].items()))
        )
