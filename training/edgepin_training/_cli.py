"""The verbs `edgepin render` and `edgepin train`."""

from __future__ import annotations

from pathlib import Path

import click

from edgepin._cli.console import Progress, exit_codes, say

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
CONFIGS = Path(__file__).parent / "configs"


@click.command()
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write."
)
@click.option("--people", default=150, show_default=True, type=click.IntRange(2), help="How many people.")
@click.option(
    "--first", default=0, show_default=True, type=click.IntRange(0), help="Number of the first person."
)
@click.option(
    "--captures",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Of each person's face and voice.",
)
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0), help="The same seed, the same people."
)
@exit_codes
def render(out: Path, people: int, first: int, captures: int, seed: int) -> None:
    """Draw and voice synthetic people into a folder corpus.

    Rendered people need no download and no consent. They measure methods; they are no substitute for real ones.
    """
    from .rendered import write_corpus

    progress = Progress()
    write_corpus(
        out,
        people=people,
        seed=seed,
        first=first,
        faces=captures,
        voices=captures,
        progress=lambda done, total: progress("rendering people", done, total),
    )
    say(f"{people} people with {captures} faces and voices each: {out}")


@click.command()
@click.option(
    "--config",
    "config_name",
    default=None,
    metavar="C.toml",
    help="Training options: a file, or the name of a packaged one (demo, small). Default: full-size encoders.",
)
@click.option("--data", type=FOLDER, help="Folder with faces/<person>/… and voices/<speaker>/….")
@click.option("--faces", type=FOLDER, help="Faces from here instead of DATA/faces.")
@click.option("--voices", type=FOLDER, help="Voices from here instead of DATA/voices.")
@click.option(
    "--pairs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TSV with columns speaker and face. Default: equal names are one person.",
)
@click.option("--face-cropped", is_flag=True, help="The images are face crops already.")
@click.option("--steps", type=click.IntRange(1), help="Overrides the configuration's number of steps.")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run. A run that stopped is resumed by the same call.",
)
@exit_codes
def train(
    config_name: str | None,
    data: Path | None,
    faces: Path | None,
    voices: Path | None,
    pairs: Path | None,
    face_cropped: bool,
    steps: int | None,
    out: Path,
) -> None:
    """Train a face and a voice encoder from a folder corpus."""
    import dataclasses

    from edgepin._errors import UsageError

    from .config import TrainConfig

    if config_name is None:
        config = TrainConfig()
    else:
        packaged = CONFIGS / f"{config_name}.toml"
        config = TrainConfig.read(packaged if packaged.is_file() else config_name)
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    faces, voices = faces or (data and data / "faces"), voices or (data and data / "voices")
    if faces is None or voices is None:
        raise UsageError(
            "no faces or no voices to train on", hint="give --data, or both --faces and --voices"
        )

    from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES

    from .corpus import Corpus, hold_out, list_captures, load_faces, load_voices, match_people, read_pairs
    from .trainer import train as run

    progress = Progress()
    face_captures = load_faces(
        list_captures(faces, IMAGE_SUFFIXES), config.face_spec, cropped=face_cropped, progress=progress
    )
    voice_captures = load_voices(list_captures(voices, SOUND_SUFFIXES), progress=progress)
    sources = {"faces": str(faces.resolve()), "voices": str(voices.resolve()), "face_cropped": face_cropped}
    paired = match_people(
        voice_captures.names, set(face_captures.names), read_pairs(pairs) if pairs else None
    )
    corpus = Corpus(face_captures, voice_captures, paired, sources=sources)
    corpus = hold_out(corpus, config.hold_out, config.seed)
    for name, captures in (("faces", corpus.faces), ("voices", corpus.voices)):
        refused = ", ".join(f"{count} {verdict}" for verdict, count in captures.refused.items())
        say(
            f"{name}: {len(captures.items)} captures of {len(captures.names)} people"
            + (f"; left out: {refused}" if refused else "")
        )
    say(
        f"{len(corpus.pairs)} people have both, {len(corpus.held_out)} more are kept for calibration"
        if corpus.pairs
        else "no face is paired with a voice: the cross-modal loss is off, and the export will need --calibration"
    )

    def report(figures: dict[str, float]) -> None:
        detail = f"face {figures['face_contrast']:.2f}, voice {figures['voice_contrast']:.2f}"
        if "cross_modal_loss" in figures:
            detail += f", cross-modal {figures['cross_modal_loss']:.2f}"
        progress(
            "training",
            int(figures["step"]),
            int(figures["steps"]),
            f"{detail}; {figures['seconds_left'] / 60:.1f} min left",
        )

    run(corpus, config, out, report=report)
    say(f"trained: {out}\nnext: edgepin export {out} --out site.pin")
