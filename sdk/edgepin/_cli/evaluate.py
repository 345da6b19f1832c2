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
    from .._runtime.backends import open_runtime
    from .._verifier import make_pipeline

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
        result = _fused(opened, encode, voice_root, face_root, trials, chimeras)
    else:
        if root is None:
            raise UsageError(f"{modality} trials need --root")
        result = _one_modality(encode, modality, root, trials)
    _show({**settings, **result, "ms_per_capture": encode.median_times()}, as_json)


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


def _one_modality(encode: Captures, modality: str, root: Path, trials_file: Path) -> dict[str, Any]:
    from ..evaluation import evaluate_modality, paths_under, read_trials

    trials = read_trials(trials_file)
    paths = paths_under(root, trials.names)
    evaluated = evaluate_modality(trials, encode.embed(modality, paths), encode.progress(modality))
    return evaluated.result.to_json()


def _fused(
    bundle: Bundle,
    encode: Captures,
    voice_root: Path,
    face_root: Path,
    trials_file: Path,
    chimeras_file: Path,
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
    return {
        **result.to_json(),
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
    if "default_policy" in result:
        policy = result["default_policy"]
        say(
            f"at the default policy (FMR {policy['fmr']}): rejected genuine {policy['false_non_match']:.4f}; accepted "
            + ", ".join(f"{kind} {rate:.4f}" for kind, rate in policy["false_match"].items())
        )
        say(result["note"])
