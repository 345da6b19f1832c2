"""`edgepin evaluate`: error rates on lists of trials."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._errors import UsageError
from .console import Progress, emit_json, exit_codes, say
from .options import FILE, bundle_options, find_bundle, make_finder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .._bundle.bundle import Bundle
    from .._pipeline import Embedding, Pipeline
    from ..evaluation import FusedScores


@click.group()
def evaluate() -> None:
    """Measure error rates on lists of trials: EER, AUC, minDCF, Cllr."""


@evaluate.command()
@click.option("--npz", required=True, type=FILE, help="Arrays `names` (m,) and `embeddings` (m, d).")
@click.option("--trials", required=True, type=FILE, help="Lines `label enroll test`; 1 is the same person.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@exit_codes
def embeddings(npz: Path, trials: Path, as_json: bool) -> None:
    """Score trials by the cosine of embeddings from a file.

    \b
    Example:
      edgepin evaluate embeddings --npz voxceleb.npz --trials veri_test.txt --json
    """
    from ..evaluation import evaluate_embeddings

    _show(evaluate_embeddings(npz, trials).to_json(), as_json)


@evaluate.command()
@click.option("--modality", required=True, type=click.Choice(["face", "voice", "fused"]))
@click.option("--root", type=FILE, help="Where the trials' paths start (face or voice).")
@click.option("--voice-root", type=FILE, help="Where the voices are (fused).")
@click.option("--face-root", type=FILE, help="Where the faces are (fused): <person>/<image>.")
@click.option("--trials", required=True, type=FILE, help="Lines `label enroll test`; 1 is the same person.")
@click.option(
    "--chimeras", type=FILE, help="TSV speaker, sex, face: whose face each speaker is given (fused)."
)
@click.option("--seconds", type=click.FloatRange(0.1, 60), help="Take the first seconds of each clip only.")
@click.option(
    "--find-faces", is_flag=True, help="Find and align faces. Default: the images are crops already."
)
@click.option(
    "--quality-gate", is_flag=True, help="Refuse captures of poor quality; their trials are non-matches."
)
@click.option("--groups", type=FILE, metavar="G.tsv", help="Person, tab, group: rates by group as well.")
@click.option(
    "--group-column", metavar="NAME", help="Which column of the groups' header. Default: the second."
)
# Figures must not depend on what was the fastest on the machine that made them.
@functools.partial(bundle_options, precision="fp32")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@exit_codes
def verification(
    modality: str,
    root: Path | None,
    voice_root: Path | None,
    face_root: Path | None,
    trials: Path,
    chimeras: Path | None,
    seconds: float | None,
    find_faces: bool,
    quality_gate: bool,
    groups: Path | None,
    group_column: str | None,
    bundle: Path | None,
    allow_unsigned: bool,
    backend: str,
    require: str | None,
    precision: str,
    face_finder: Path | None,
    as_json: bool,
) -> None:
    """Score trials with a bundle's own encoders, from the files themselves.

    \b
    Example:
      edgepin evaluate verification --modality voice --root eval --trials voice.txt --seconds 3 --bundle site.pin --json
    """
    from .._bundle.bundle import Bundle
    from .._decision.groups import read_groups
    from .._runtime.backends import open_runtime
    from .._verifier import make_pipeline

    if group_column is not None and groups is None:
        raise UsageError("--group-column is of --groups")
    grouping = read_groups(groups, group_column) if groups is not None else None
    opened = Bundle.open(find_bundle(bundle), allow_unsigned=allow_unsigned)
    chosen = open_runtime(opened, backend=backend, require=require, precision=precision)
    say(chosen.about)
    pipeline = make_pipeline(opened, chosen.runtime, make_finder(face_finder))
    encode = Captures(pipeline, seconds=seconds, cropped=not find_faces, gate=quality_gate)
    settings = {
        "modality": modality,
        "backend": chosen.backend,
        "precision": chosen.precision,
        "seconds": seconds,
        "bundle": opened.digest,
    }
    if modality == "fused":
        if voice_root is None or face_root is None or chimeras is None:
            raise UsageError("fused trials need --voice-root, --face-root and --chimeras")
        result = _fused(opened, encode, voice_root, face_root, trials, chimeras, grouping)
    else:
        if root is None:
            raise UsageError(f"{modality} trials need --root")
        result = _one_modality(opened, encode, modality, root, trials, grouping)
    _show({**settings, **result, "ms_per_capture": encode.median_times()}, as_json)


@evaluate.command()
@click.option("--lists", required=True, type=FILE, help="Folder with the official lists on VoxCeleb1.")
@click.option("--face-npz", required=True, type=FILE, help="Arrays `names` (m,) and `embeddings` (m, d).")
@click.option("--voice-npz", required=True, type=FILE, help="The same of voices, in the same space.")
@click.option(
    "--replicates", default=500, show_default=True, type=click.IntRange(20), help="Resamples of people."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of all that is drawn.")
@click.option("--plots", type=FILE, help="Also write SVG pictures into this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
@exit_codes
def pins(
    lists: Path,
    face_npz: Path,
    voice_npz: Path,
    replicates: int,
    seed: int,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Make the tables of Learnable PINs from embeddings of faces and voices.

    \b
    Example:
      edgepin evaluate pins --lists pins_protocol --face-npz faces.npz --voice-npz voices.npz --json
    """
    from .._pins.draws import Resampling
    from .._pins.evaluate import evaluate_pins
    from .._pins.report import draw, tables

    found = evaluate_pins(lists, face_npz, voice_npz, Resampling(replicates, seed))
    if plots is not None:
        for path in draw(found, plots):
            say(f"wrote {path}")
    found.pop("roc")
    if as_json:
        emit_json("pins", found)
    else:
        for line in tables(found):
            click.echo(line)
        for what, why in found["left_out"].items():
            say(f"left out: {what}: {why}")


class Captures:
    """Embeds captures by path and keeps the time of each stage."""

    def __init__(self, pipeline: Pipeline, *, seconds: float | None, cropped: bool, gate: bool) -> None:
        self._pipeline, self._seconds, self._cropped, self._gate = pipeline, seconds, cropped, gate
        self._times: dict[str, list[float]] = {}
        self._progress = Progress()

    def embed(self, modality: str, paths: dict[str, Path]) -> Callable[[str], tuple[Any, Any]]:
        from .._pipeline import Timings

        def one(name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
            timings = Timings()
            made: Embedding
            if modality == "face":
                made = self._pipeline.face(
                    paths[name], cropped=self._cropped, gate=self._gate, timings=timings
                )
            else:
                made = self._pipeline.voice(
                    paths[name], seconds=self._seconds, gate=self._gate, timings=timings
                )
            for stage, ms in timings.stages.items():
                key = stage if stage.startswith(("find", "log", "encode")) else f"{stage}_{modality}"
                self._times.setdefault(key, []).append(ms)
            return made.identity, made.pin

        return one

    def progress(self, modality: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(f"embedding {modality}s", done, total)

    def median_times(self) -> dict[str, float]:
        """Milliseconds by stage."""
        return {stage: round(sorted(times)[len(times) // 2], 3) for stage, times in self._times.items()}


Grouping = dict[str, str] | None


def _one_modality(
    bundle: Bundle,
    encode: Captures,
    modality: str,
    root: Path,
    trials_file: Path,
    grouping: Grouping,
) -> dict[str, Any]:
    from .._decision.fusion import Fusion
    from ..evaluation import evaluate_modality, paths_under, read_trials, subject_of

    trials = read_trials(trials_file)
    paths = paths_under(root, trials.names)
    evaluated = evaluate_modality(trials, encode.embed(modality, paths), encode.progress(modality))
    result = evaluated.result.to_json()
    if grouping is not None:
        fusion = Fusion.from_json(bundle.manifest.fusion)
        point = fusion.evidence.sets[modality].strictest
        calibration = fusion.model.face if modality == "face" else fusion.model.voice
        # A refused capture is a non-match at any threshold, also in LLRs.
        result["groups"] = _by_group(
            [subject_of(name) for name in trials.enroll],
            [subject_of(name) for name in trials.test],
            calibration.llr(evaluated.scores),
            trials.labels,
            grouping,
            point,
        )
    return result


def _by_group(
    enroll: list[str], test: list[str], llr: Any, labels: Any, grouping: dict[str, str], point: Any
) -> dict[str, Any]:
    """Rates by group at the point of the default policy; without one EER alone."""
    from .._decision.groups import rates_by_group

    rates = rates_by_group(
        llr, labels, enroll, test, grouping, threshold=None if point is None else point.threshold
    )
    return {
        "fmr": None if point is None else point.fmr,
        "threshold": None if point is None else point.threshold,
        "rates": [one.to_json() for one in rates],
    }


def _fused(
    bundle: Bundle,
    encode: Captures,
    voice_root: Path,
    face_root: Path,
    trials_file: Path,
    chimeras_file: Path,
    grouping: Grouping,
) -> dict[str, Any]:
    """EER of the fused LLR on the trials, and what the bundle's default policy does to every kind of attempt."""
    import numpy as np

    from .._decision.fusion import Fusion
    from .._decision.policy import Policy, decide, resolve
    from ..evaluation import (
        embed_captures,
        fused_scores,
        fused_trials,
        paths_under,
        read_chimeras,
        read_trials,
    )
    from ..metrics import summarize

    sets = fused_trials(read_trials(trials_file), voice_root, face_root, read_chimeras(chimeras_file))
    captured = {}
    for modality, names, root in (("voice", sets.voices, voice_root), ("face", sets.faces, face_root)):
        paths = paths_under(root, names)
        captured[modality] = embed_captures(names, encode.embed(modality, paths), encode.progress(modality))
    fusion = Fusion.from_json(bundle.manifest.fusion)
    policy = resolve(Policy(), fusion)
    kinds = {"trials": sets.trials, "other_voice": sets.other_voice, "other_face": sets.other_face}
    llrs, accepted = {}, {}
    for kind, trials in kinds.items():
        scores = fused_scores(trials, captured["voice"], captured["face"])
        verdicts = [decide(one, fusion, policy) for one in _each(scores)]
        llrs[kind] = np.array([fusion.llr(one) for one in _each(scores)])
        accepted[kind] = np.array([verdict.accepted for verdict in verdicts])
    labels = sets.trials.labels
    refused = {**captured["voice"].refused, **captured["face"].refused}
    result = dataclasses.replace(summarize(llrs["trials"], labels, llr=True, failed=len(refused)))
    point = policy.sets["face+voice"].point
    people = np.array(sets.people)
    by_group = None
    if grouping is not None:
        enroll, test = (
            people[side].tolist() for side in (sets.trials.enroll_subject, sets.trials.test_subject)
        )
        by_group = _by_group(enroll, test, llrs["trials"], labels, grouping, point)
    return {
        **result.to_json(),
        **({} if by_group is None else {"groups": by_group}),
        "chimeric": True,
        "note": "chimeric people: this measures the decision, not whether faces and voices go together",
        "default_policy": {
            "fmr": None if point is None else point.fmr,
            "threshold": None if point is None else point.threshold,
            "false_non_match": _rate(~accepted["trials"][labels]),
            "false_match": {
                "stranger": _rate(accepted["trials"][~labels]),
                "other_voice": _rate(accepted["other_voice"]),
                "other_face": _rate(accepted["other_face"]),
            },
        },
    }


def _each(scores: FusedScores) -> Any:
    from .._decision.fusion import Scores

    for row in zip(scores.face, scores.voice, scores.face_voice, scores.voice_face, strict=True):
        yield Scores(*(float(value) for value in row))


def _rate(outcomes: npt.NDArray[np.bool_]) -> float | None:
    return float(outcomes.mean()) if len(outcomes) else None


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json("evaluation", result)
        return
    for name in ("eer", "auc", "min_dcf", "cllr", "min_cllr"):
        if result.get(name) is not None:
            click.echo(f"{name:9} {result[name]:.4f}")
    say(
        f"{result['genuine']} genuine and {result['impostor']} impostor trials, {result.get('failed', 0)} captures refused"
    )
    if "groups" in result:
        _tell_groups(result["groups"])
    if "default_policy" in result:
        policy = result["default_policy"]
        say(
            f"at the default policy (FMR {policy['fmr']}): rejected genuine {policy['false_non_match']:.4f}; accepted "
            + ", ".join(f"{kind} {rate:.4f}" for kind, rate in policy["false_match"].items())
        )
        say(result["note"])


def _tell_groups(groups: dict[str, Any]) -> None:
    def shown(value: dict[str, float] | None) -> str:
        if value is None:
            return "none"
        return f"{100 * value['rate']:.3f} ({100 * value['low']:.3f} to {100 * value['high']:.3f})"

    if groups["fmr"] is not None:
        say(
            f"at the default policy's threshold (FMR {groups['fmr']:g}), in %, with 95 % intervals by subject:"
        )
    click.echo(f"{'group':16} {'people':>6} {'EER':>26} {'FMR':>26} {'FNMR':>26}")
    for row in groups["rates"]:
        cells = (f"{shown(row[key]):>26}" for key in ("eer", "fmr", "fnmr"))
        click.echo(f"{' x '.join(row['groups']):16} {row['people']:>6} {' '.join(cells)}")
