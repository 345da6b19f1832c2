"""`edgepin evaluate`: error rates on lists of trials."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .._errors import UsageError
from .console import Progress, emit_json, exit_codes, say
from .options import FILE, bundle_options, open_pipeline


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
@functools.partial(bundle_options, precision="highest")
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
    as_json: bool,
    **opening: Any,
) -> None:
    """Score trials with a bundle's own encoders, from the files themselves.

    \b
    Example:
      edgepin evaluate verification --modality voice --root eval --trials voice.txt --seconds 3 --bundle site.pin --json
    """
    from .._decision.fusion import Fusion
    from .._measurement import Captures, measure_fused, measure_modality
    from ..evaluation import fused_trials, read_chimeras, read_groups, read_trials

    if group_column is not None and groups is None:
        raise UsageError("--group-column is of --groups")
    # What would be ignored may not be what is meant.
    for option, value, of in (
        ("--root", root, ("face", "voice")),
        ("--voice-root", voice_root, ("fused",)),
        ("--face-root", face_root, ("fused",)),
        ("--chimeras", chimeras, ("fused",)),
    ):
        if value is not None and modality not in of:
            raise UsageError(
                f"{option} is of {' and '.join(of)} trials", hint=f"leave it out for --modality {modality}"
            )
    if seconds is not None and modality == "face":
        click.echo("note: --seconds is of voices and changes nothing here", err=True)
    if find_faces and modality == "voice":
        click.echo("note: --find-faces is of faces and changes nothing here", err=True)
    grouping = read_groups(groups, group_column) if groups is not None else None
    measure: Callable[..., dict[str, Any]]
    # The lists are read before the encoders are opened: that may take minutes.
    if modality == "fused":
        if voice_root is None or face_root is None or chimeras is None:
            raise UsageError("fused trials need --voice-root, --face-root and --chimeras")
        sets = fused_trials(read_trials(trials), voice_root, face_root, read_chimeras(chimeras))
        measure = functools.partial(measure_fused, sets=sets, voice_root=voice_root, face_root=face_root)
    else:
        if root is None:
            raise UsageError(f"{modality} trials need --root")
        measure = functools.partial(
            measure_modality, modality=modality, root=root, trials=read_trials(trials)
        )
    opened, chosen, pipeline = open_pipeline(**opening)
    captures = Captures(
        pipeline, seconds=seconds, cropped=not find_faces, gate=quality_gate, report=Progress()
    )
    result = measure(Fusion.from_json(opened.manifest.fusion), captures, groups=grouping)
    settings = {
        "modality": modality,
        "backend": chosen.backend,
        "precision": chosen.precision,
        "seconds": seconds,
        "bundle": opened.digest,
    }
    _show({**settings, **result, "ms_per_capture": captures.median_times()}, as_json)


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


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json("evaluation", result)
        return
    for name in ("eer", "auc", "min_dcf", "cllr", "min_cllr"):
        if result.get(name) is not None:
            click.echo(f"{name:9} {result[name]:.4f}")
    if "plain_sum" in result:
        _tell_kinds(result)
    say(
        f"{result['genuine']} genuine and {result['impostor']} impostor trials, {result.get('failed', 0)} captures refused"
    )
    if "groups" in result:
        _tell_groups(result["groups"])
    policy = result.get("default_policy")
    if policy is not None:
        say(
            f"at the default policy (FMR {policy['fmr']}): rejected genuine {policy['false_non_match']:.4f}; accepted "
            + ", ".join(f"{kind} {rate:.4f}" for kind, rate in policy["false_match"].items())
        )
    if "note" in result:
        say(result["note"])


def _tell_kinds(result: dict[str, Any]) -> None:
    plain = result["plain_sum"]
    click.echo(f"{'eer by kind of impostor':24}" + "".join(f"{kind:>13}" for kind in result["eer_by_kind"]))
    for title, rates in (
        ("joint LLR", result["eer_by_kind"]),
        ("plain sum", plain["eer_by_kind"]),
        ("sum of std. cosines", result["standardized_sum"]["eer_by_kind"]),
    ):
        click.echo(f"  {title:22}" + "".join(f"{rate:13.4f}" for rate in rates.values()))
    say(
        f"the plain sum of the face's and the voice's LLR is not what decides; strangers: Cllr {plain['cllr']:.4f}, "
        f"min. {plain['min_cllr']:.4f}"
    )


def _tell_groups(groups: dict[str, Any]) -> None:
    def shown(value: dict[str, float] | None) -> str:
        if value is None:
            return "none"
        return f"{100 * value['rate']:.3f} ({100 * value['low']:.3f} to {100 * value['high']:.3f})"

    if groups["fmr"] is not None:
        say(f"FMR and FNMR at the threshold for an FMR of {groups['fmr']:g}")
    say(
        "in %, with 95 % intervals by subject; one group: trials within it, two: impostors between them alone"
    )
    click.echo(f"{'group':16} {'people':>6} {'EER':>26} {'FMR':>26} {'FNMR':>26}")
    for row in groups["rates"]:
        cells = (f"{shown(row[key]):>26}" for key in ("eer", "fmr", "fnmr"))
        click.echo(f"{' x '.join(row['groups']):16} {row['people']:>6} {' '.join(cells)}")
