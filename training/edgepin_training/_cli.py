"""The verbs `edgepin render` and `edgepin train`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepin._cli.console import Progress, exit_codes, say

if TYPE_CHECKING:
    from .config import TrainConfig
    from .corpus import Corpus
    from .sampler import Sampler

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
@click.option(
    "--setting",
    default="standard",
    show_default=True,
    type=click.Choice(["standard", "reference"]),
    help="How much of what face and voice share can be seen.",
)
@click.option(
    "--difficulty",
    type=click.FloatRange(0),
    help="How far face and voice disagree, instead of the setting's: 0 not at all, 1 as standard.",
)
@exit_codes
def render(
    out: Path, people: int, first: int, captures: int, seed: int, setting: str, difficulty: float | None
) -> None:
    """Draw and voice synthetic people into a folder corpus.

    Rendered people need no download and no consent. They measure methods; they are no substitute for real ones.
    """
    import dataclasses

    from .rendered import SETTINGS, oracle_auc, write_corpus

    chosen = SETTINGS[setting]
    if difficulty is not None:
        chosen = dataclasses.replace(chosen, difficulty=difficulty)
    progress = Progress()
    write_corpus(
        out,
        people=people,
        seed=seed,
        first=first,
        faces=captures,
        voices=captures,
        setting=chosen,
        progress=lambda done, total: progress("rendering people", done, total),
    )
    say(f"{people} people with {captures} faces and voices each: {out}")
    say(f"the best possible cross-modal AUC on such people is {oracle_auc(chosen):.4f}")


@click.command()
@click.option(
    "--config",
    "config_name",
    default=None,
    metavar="C.toml",
    help="Training options: a file, or the name of a packaged one (demo, small, learnable_pins, siamese_triplet, "
    "reference). Default: full-size encoders.",
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
@click.option(
    "--index",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Captures as `edgepin index` found them, read from disk when they are drawn; of official splits, the training one.",
)
@click.option(
    "--shards", metavar="DIR|URL", help="Shards that `edgepin index --shards` wrote, read front to back."
)
@click.option(
    "--workers",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Processes that make batches beside the training. The batches are the same.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where to train; auto: a GPU, if there is one.",
)
@click.option("--tensorboard", is_flag=True, help="Write curves for TensorBoard into OUT/tensorboard.")
@click.option("--steps", type=click.IntRange(1), help="Overrides the configuration's number of steps.")
@click.option(
    "--init",
    type=click.Path(exists=True, path_type=Path),
    help="A run, or a safetensors file, whose encoders the training starts from.",
)
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
    index: Path | None,
    shards: str | None,
    workers: int,
    device: str,
    tensorboard: bool,
    steps: int | None,
    init: Path | None,
    out: Path,
) -> None:
    """Train a face and a voice encoder from a folder corpus, an index or shards.

    Under torchrun, several processes or GPUs train one model: torchrun --nproc-per-node 2 -m edgepin_training train …
    """
    import dataclasses

    from edgepin._errors import UsageError

    from .config import TrainConfig
    from .parallel import launched

    leads = launched()[0] == 0

    if config_name is None:
        config = TrainConfig()
    else:
        packaged = CONFIGS / f"{config_name}.toml"
        config = TrainConfig.read(packaged if packaged.is_file() else config_name)
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    if init is not None:
        config = dataclasses.replace(config, init=str(init.resolve()))
    folders = any(option is not None for option in (data, faces, voices, pairs)) or face_cropped
    if folders + (index is not None) + (shards is not None) > 1:
        raise UsageError(
            "give folders, --index or --shards, one of them: an index says all that folders' options say"
        )
    if index is not None or shards is not None:
        from .data.opening import open_data

        corpus, sampler = open_data(index, shards, config)
        _train(corpus, config, out, leads, sampler, workers=workers, device=device, tensorboard=tensorboard)
        return
    faces, voices = faces or (data and data / "faces"), voices or (data and data / "voices")
    if faces is None or voices is None:
        raise UsageError(
            "no faces or no voices to train on",
            hint="give --data, or both --faces and --voices, or --index, or --shards",
        )

    from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES

    from .corpus import Corpus, hold_out, list_captures, load_faces, load_voices, match_people, read_pairs

    progress = Progress() if leads else None
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
    _train(corpus, config, out, leads, workers=workers, device=device, tensorboard=tensorboard)


def _train(
    corpus: Corpus,
    config: TrainConfig,
    out: Path,
    leads: bool,
    sampler: Sampler | None = None,
    *,
    workers: int,
    device: str,
    tensorboard: bool,
) -> None:
    """Say what is trained on, in the process that leads, and train."""
    from .run_log import lacking_tensorboard
    from .trainer import train as run

    if not leads:
        run(corpus, config, out, workers=workers, sampler=sampler, device=device)
        return
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        lacking = lacking_tensorboard()
        say(f"warning: {lacking}\nhint: {lacking.hint}")
        tensorboard = False
    progress = Progress()
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
        named = {"face": "face_contrast", "voice": "voice_contrast", "cross-modal": "cross_modal_loss"}
        detail = ", ".join(f"{name} {figures[key]:.2f}" for name, key in named.items() if key in figures)
        progress(
            "training",
            int(figures["step"]),
            int(figures["steps"]),
            f"{detail}; {figures['seconds_left'] / 60:.1f} min left",
        )

    run(
        corpus,
        config,
        out,
        report=report,
        workers=workers,
        sampler=sampler,
        device=device,
        board=tensorboard,
    )
    say(f"trained: {out}\nnext: edgepin export {out} --out site.pin")
