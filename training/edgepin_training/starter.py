"""The starter: face and voice encoders distilled from public teachers on real captures, with rendered people beside.

    python -m edgepin_training.starter --faces F --voices V --more-voices U --out runs/starter

Everything made on the way (rendered people, views, the teachers' embeddings, the state of both trainings) is kept in
the folder of the run and found again by the next call, so a call that was killed is simply made again. A longer
schedule (`--face-steps`, `--voice-steps`) goes on from where a shorter one ended. What comes out is a run for
`edgepin export`.

The pins of the starter are trained on rendered people alone, with the rest of the encoders frozen: real faces and
voices here belong to nobody together. The run says that it has no pairs, so no decision is made by them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from edgepin._cli.console import Progress as Bar
from edgepin._cli.console import exit_codes, say

from .checkpoint import build_encoders, save_checkpoint, write_run
from .config import TrainConfig
from .corpus import Modality
from .distill import Source, distill, load_average
from .parallel import pick_device
from .pins import train_pins
from .starter_data import FaceCaptures, Recipe, StarterData, Teachers, VoiceCaptures
from .teachers import FaceTeacher, Progress, VoiceTeacher

CONFIGS = Path(__file__).parent / "configs"


def make_starter(
    data: StarterData,
    out: Path,
    *,
    face: Recipe,
    voice: Recipe,
    config: TrainConfig,
    teachers: Teachers | None = None,
    only: str = "",
    init: Path | None = None,
    device: torch.device = torch.device("cpu"),  # noqa: B008 (immutable)
    progress: Progress,
) -> None:
    """Trains both encoders or, with `only`, the "face" or the "voice"; `assemble` makes a run of them.

    Recipes that are `online` are trained on `device`, the others on the CPU.

    `init` is a folder that an earlier call wrote, with another recipe or other captures: a training that has no state in
    `out` yet starts from the weights there, where there are any.

    Raises:
        UsageError: a folder is missing or empty, or `out` holds a run with other options.
        EnvironmentFault: a teacher is needed and not installed.
    """
    teachers = teachers or Teachers()
    encoders = build_encoders(config, {})
    rendered = _rendered(out / "rendered", data, progress)
    if only in ("", "face"):
        faces = FaceCaptures.read(data, rendered, config.face_spec, progress)
        source: Source
        if face.online:
            source = faces.online_source(out / "faces", data, face, teachers, device, progress)
        else:
            source = faces.source(out / "faces", face, teachers, progress)
        told = {"recipe": _told(face), "captures": faces.digest}
        distill(
            encoders["face"],
            source,
            face.distill,
            out / "faces",
            told=told,
            init=init and init / "faces",
            report=_report("face", progress),
        )
    if only in ("", "voice"):
        voices = VoiceCaptures.read(data, rendered, progress)
        if voice.online:
            source = voices.online_source(voice, teachers, config.log_mel, device)
        else:
            source = voices.source(out / "voices", voice, teachers, config.log_mel, progress)
        told = {"recipe": _told(voice), "captures": voices.digest}
        distill(
            encoders["voice"],
            source,
            voice.distill,
            out / "voices",
            told=told,
            init=init and init / "voices",
            report=_report("voice", progress),
        )


def assemble(
    data: StarterData, out: Path, *, config: TrainConfig, face: Recipe, voice: Recipe, progress: Progress
) -> None:
    """The run for `edgepin export`, of what both trainings have averaged so far, with pins trained on rendered people."""
    encoders = build_encoders(config, {})
    steps = {
        "face": load_average(encoders["face"], out / "faces"),
        "voice": load_average(encoders["voice"], out / "voices"),
    }
    rendered = _rendered(out / "rendered", data, progress)
    faces = FaceCaptures.read(data, rendered, config.face_spec, progress)
    voices = VoiceCaptures.read(data, rendered, progress)
    pins = train_pins(
        encoders["face"],
        encoders["voice"],
        faces.rendered,
        voices.rendered,
        log_mel=config.log_mel,
        seed=config.seed,
    )
    config = dataclasses.replace(config, steps=max(steps.values()))
    corpus = {
        "faces": _counts(faces.real),
        "voices": _counts(voices.real)
        | {"unlabelled": len(voices.unknown), "minutes": round(voices.seconds / 60, 1)},
        "pairs": 0,
        "held_out": {},
        "sources": {
            "faces": str(data.faces.resolve()),
            "voices": str(data.voices.resolve()),
            "face_cropped": data.face_cropped,
        },
        "rendered": {"people": data.rendered_people, "captures": data.rendered_captures, "pins": pins},
        "distilled": {
            "face": {"teacher": FaceTeacher.name, "steps": steps["face"], **_told(face)},
            "voice": {"teacher": VoiceTeacher.name, "steps": steps["voice"], **_told(voice)},
        },
    }
    write_run(out, config, corpus)
    modules = nn.ModuleDict(encoders)
    save_checkpoint(out, config.steps, modules, torch.optim.AdamW(modules.parameters()))


def _rendered(folder: Path, data: StarterData, progress: Progress) -> Path:
    from .rendered import write_corpus

    write_corpus(
        folder,
        people=data.rendered_people,
        seed=1,
        first=100_000,  # nobody whom `edgepin render` draws by default
        faces=data.rendered_captures,
        voices=data.rendered_captures,
        progress=lambda done, total: progress("rendering people", done, total),
    )
    return folder


def _report(modality: str, progress: Progress) -> Callable[[dict[str, float]], None]:
    def report(figures: dict[str, float]) -> None:
        detail = f"angle {figures['angle']:.3f}; {figures['seconds_left'] / 60:.1f} min left"
        progress(f"distilling the {modality} encoder ({detail})", int(figures["step"]), int(figures["steps"]))

    return report


def _told(recipe: Recipe) -> dict[str, Any]:
    told = dataclasses.asdict(recipe)
    del told["distill"]
    return told


def _counts(modality: Modality) -> dict[str, Any]:
    return {"people": len(modality.names), "captures": len(modality.items), "refused": modality.refused}


_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--faces", type=_FOLDER, required=True, help="Face crops, in folders by person.")
@click.option("--voices", type=_FOLDER, required=True, help="Voices, in folders by speaker.")
@click.option("--more-voices", type=_FOLDER, help="Voices whose speakers are not known.")
@click.option("--face-recipe", type=click.Path(path_type=Path), help="TOML, instead of the packaged one.")
@click.option("--voice-recipe", type=click.Path(path_type=Path), help="TOML, instead of the packaged one.")
@click.option("--face-steps", type=click.IntRange(1), help="Overrides the recipe's number of steps.")
@click.option("--voice-steps", type=click.IntRange(1), help="Overrides the recipe's number of steps.")
@click.option(
    "--only", type=click.Choice(["face", "voice", "assemble"]), help="Only this part, of a run in parts."
)
@click.option(
    "--init", type=_FOLDER, help="An earlier run to start from, of another recipe or other captures."
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where to train. On a GPU the teachers label new captures without end, by recipes of their own.",
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run."
)
@exit_codes
def main(
    faces: Path,
    voices: Path,
    more_voices: Path | None,
    face_recipe: Path | None,
    voice_recipe: Path | None,
    face_steps: int | None,
    voice_steps: int | None,
    only: str | None,
    init: Path | None,
    device: str,
    out: Path,
) -> None:
    """Distill the starter's encoders. A call that was killed goes on where it stood when it is made again."""
    data = StarterData(faces, voices, more_voices)
    where = pick_device(device)
    kind = "_online" if where.type == "cuda" else ""
    face = Recipe.read(face_recipe or CONFIGS / f"starter_face{kind}.toml").of_steps(face_steps)
    voice = Recipe.read(voice_recipe or CONFIGS / f"starter_voice{kind}.toml").of_steps(voice_steps)
    config = TrainConfig.read(CONFIGS / "edge.toml")
    progress = Bar()
    if only != "assemble":
        make_starter(
            data,
            out,
            face=face,
            voice=voice,
            config=config,
            only=only or "",
            init=init,
            device=where,
            progress=progress,
        )
    if only in (None, "assemble"):
        assemble(data, out, config=config, face=face, voice=voice, progress=progress)
        say(f"trained: {out}\nnext: edgepin export {out} --out starter.pin --calibration … --chimeric")


if __name__ == "__main__":
    main()
