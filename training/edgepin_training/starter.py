"""The starter: face and voice encoders distilled from public teachers on real captures, with rendered people beside.

    python -m edgepin_training.starter --faces F --voices V --more-voices U --out runs/starter

On a GPU the teachers label captures that are made while the encoders train; on a CPU, which has no time for that, they
embed a fixed set of views once. Everything made on the way (rendered people, the places of the teacher's chips, views, the
teachers' embeddings, the state of both trainings) is kept in the folder of the run and found again by the next call, so a
call that was killed is simply made again. A longer schedule (`--face-steps`, `--voice-steps`) goes on from where a shorter
one ended. What comes out is a run for `edgepin export`.

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
from edgepin._errors import UsageError

from .checkpoint import build_encoders, save_checkpoint, write_run
from .config import TrainConfig
from .corpus import Modality
from .distill import Source, distill
from .distill_state import STATE_FILE, load_average, read_told
from .parallel import pick_device
from .pins import train_pins
from .starter_data import FaceCaptures, Recipe, StarterData, Teachers, VoiceCaptures
from .teachers import FaceTeacher, Progress, VoiceTeacher
from .whitening import whiten_identity

CONFIGS = Path(__file__).parent / "configs"
FOLDERS = {"face": "faces", "voice": "voices"}  # of a run


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
    for modality, recipe in (("face", face), ("voice", voice)):
        if only in ("", modality):
            _refuse_another(recipe, out / FOLDERS[modality])
    torch.manual_seed(config.seed)
    encoders = build_encoders(config, {})
    rendered = _rendered(out / "rendered", data, progress)

    def train(modality: str, source: Source, recipe: Recipe, told: dict[str, Any]) -> None:
        distill(
            encoders[modality],
            source,
            recipe.distill,
            out / FOLDERS[modality],
            told={"recipe": _told(recipe), **told},
            init=init and init / FOLDERS[modality],
            report=_report(modality, progress),
        )

    if only in ("", "face"):
        faces = FaceCaptures.read(data, rendered, config.face_spec, progress)
        told: dict[str, Any] = {"captures": faces.digest}
        folder = out / FOLDERS["face"]
        if face.online:
            online = faces.online_source(folder, data, face, teachers, device, progress)
            train("face", online, face, told | {"online": dataclasses.asdict(online.options)})
        else:
            train("face", faces.source(folder, face, teachers, progress), face, told)
    if only in ("", "voice"):
        voices = VoiceCaptures.read(data, rendered, progress)
        source: Source
        if voice.online:
            source = voices.online_source(voice, teachers, config.log_mel, device)
        else:
            source = voices.source(out / FOLDERS["voice"], voice, teachers, config.log_mel, progress)
        train("voice", source, voice, {"captures": voices.digest})


def _refuse_another(recipe: Recipe, folder: Path) -> None:
    """As `distill` would, but before a teacher has worked for it."""
    if (folder / STATE_FILE).exists() and read_told(folder).get("recipe") != _told(recipe):
        raise UsageError(
            f"{folder} was begun by another recipe",
            hint="a GPU and a CPU have different ones: give that recipe, or choose another folder",
        )


def assemble(data: StarterData, out: Path, *, config: TrainConfig, progress: Progress) -> None:
    """The run for `edgepin export`, of what both trainings have averaged so far, whitened by the real training captures.

    Its pins are trained on rendered people.

    Raises:
        UsageError: a training has no state yet, or was of other captures than those of `data`.
    """
    encoders = build_encoders(config, {})
    steps = {name: load_average(encoders[name], out / folder) for name, folder in FOLDERS.items()}
    # Only the states know by which recipe they were made: a GPU's may be assembled where there is none.
    told = {name: read_told(out / folder) for name, folder in FOLDERS.items()}
    rendered = _rendered(out / "rendered", data, progress)
    faces = FaceCaptures.read(data, rendered, config.face_spec, progress)
    voices = VoiceCaptures.read(data, rendered, progress)
    for name, digest in (("face", faces.digest), ("voice", voices.digest)):
        if told[name]["captures"] != digest:
            raise UsageError(
                f"{out / FOLDERS[name]} was trained on other captures", hint="give those of the training"
            )
    whitened = {
        "face": whiten_identity(encoders["face"], faces.plain()),
        "voice": whiten_identity(encoders["voice"], voices.plain(config.log_mel)),
    }
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
            name: {
                "teacher": teacher,
                "steps": steps[name],
                **told[name]["recipe"],
                "whitened_by": whitened[name],
            }
            for name, teacher in (("face", FaceTeacher.name), ("voice", VoiceTeacher.name))
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
    help="Where to train. A GPU has recipes of its own, by which the teachers label new captures without end.",
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
    config = TrainConfig.read(CONFIGS / "edge.toml")
    progress = Bar()
    if only != "assemble":
        where = pick_device(device)
        kind = "_online" if where.type == "cuda" else ""
        face = Recipe.read(face_recipe or CONFIGS / f"starter_face{kind}.toml").of_steps(face_steps)
        voice = Recipe.read(voice_recipe or CONFIGS / f"starter_voice{kind}.toml").of_steps(voice_steps)
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
        assemble(data, out, config=config, progress=progress)
        say(f"trained: {out}\nnext: edgepin export {out} --out starter.pin --calibration … --chimeric")


if __name__ == "__main__":
    main()
