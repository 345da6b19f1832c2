"""What `edgepin export` takes for foreign encoders: its options, and what it does with them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgepin._cli.console import Progress, say

if TYPE_CHECKING:
    from edgepin_kernels import LogMelSpec
    from edgepin_training.checkpoint import Run

    from ._export import CalibrationPeople, Exported
    from ._foreign_open import ForeignEncoder
    from ._foreign_people import FitPeople

F = TypeVar("F", bound=Callable[..., Any])

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class ForeignOptions:
    """The options of `foreign_options`, under their names."""

    face_onnx: Path | None = None
    face_spec: str | None = None
    voice_onnx: Path | None = None
    voice_spec: str | None = None
    fit: Path | None = None
    fit_faces: Path | None = None
    fit_voices: Path | None = None

    @property
    def given(self) -> bool:
        """Whether an encoder, or anything else that only they need, was given."""
        return any(getattr(self, field.name) is not None for field in fields(self))


def foreign_options(verb: F) -> F:
    """--face-onnx, --face-spec, --voice-onnx, --voice-spec, --fit, --fit-faces, --fit-voices: as one `foreign`."""
    names = [field.name for field in fields(ForeignOptions)]

    @functools.wraps(verb)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        foreign = ForeignOptions(**{name: kwargs.pop(name) for name in names})
        return verb(*args, foreign=foreign, **kwargs)

    made: Any = gathered
    for option in reversed(
        (
            click.option("--face-onnx", type=_FILE, help="A face encoder that was trained elsewhere."),
            click.option(
                "--face-spec", metavar="SPEC", help="What it takes: a preset's name or a TOML file."
            ),
            click.option("--voice-onnx", type=_FILE, help="A voice encoder that was trained elsewhere."),
            click.option(
                "--voice-spec", metavar="SPEC", help="What it takes: a preset's name or a TOML file."
            ),
            click.option(
                "--fit",
                type=_FOLDER,
                help="Folder with faces/ and voices/ of people to fit projections and INT8 ranges on. They must not be "
                "calibrated on. Default: those of the run, or those of CALIBRATION whom nobody is calibrated on.",
            ),
            click.option("--fit-faces", type=_FOLDER, help="Faces from here instead of FIT/faces."),
            click.option("--fit-voices", type=_FOLDER, help="Voices from here instead of FIT/voices."),
        )
    ):
        made = option(made)
    return made  # type: ignore[no-any-return]


def export_with_foreign(
    options: ForeignOptions,
    run: Run | None,
    people: CalibrationPeople,
    out: Path,
    *,
    name: str | None,
    unsigned: bool,
    qat: str,
    allow_missing: tuple[str, ...],
) -> tuple[Exported, LogMelSpec]:
    """The export where an encoder was given: the other one is given too, or comes from `run`. Also the front-end.

    Raises:
        UsageError: an option is missing or does not fit, or what `export_foreign` raises.
    """
    from edgepin._bundle.signing import SigningKey
    from edgepin._errors import UsageError

    from ._foreign_export import export_foreign
    from ._foreign_spec import ForeignVoice

    if qat == "always":
        raise UsageError(
            "an encoder that was trained elsewhere cannot be fine-tuned for INT8", hint="leave --qat out"
        )
    encoders = _encoders(options, run)
    key = None if unsigned else SigningKey.load_or_create()
    made = export_foreign(
        encoders,
        people,
        _fit_people(options, run, people),
        out,
        name=name or out.stem,
        key=key,
        about=_about(run),
        allow_missing=allow_missing,
        progress=Progress(),
    )
    for line in summary(made.training):
        say(line)
    for word in made.advice:
        say(f"note: {word}")
    voice = encoders["voice"].spec
    assert isinstance(voice, ForeignVoice)
    return made.exported, voice.log_mel


def summary(training: dict[str, Any]) -> list[str]:
    """What was found of the encoders, in lines for people: from `training` of a manifest."""
    lines = []
    for modality, found in training["foreign"].items():
        projection = found["projection"]
        how = {
            "none": "taken as they are",
            "zeros": "padded to 256",
            "principal directions": f"projected to 256, EER {100 * projection['eer']:.2f} % after it "
            f"({100 * projection['kept_energy']:.1f} % of the energy kept)",
        }[projection["kind"]]
        lines.append(
            f"{modality}: EER {100 * found['eer']:.2f} % on the calibration people; {found['dim']} dimensions, {how}"
            + (f"; {'; '.join(found['changes'])}" if found["changes"] else "")
        )
        rest = found["floating_point"]
        if rest["share"] > 0.2:
            lines.append(
                f"{modality}: INT8 leaves {100 * rest['share']:.0f} % of its weights in floating point "
                f"({', '.join(rest['operators'])})"
            )
    pins = training["pins"]
    lines.append(
        f"cross-modal scores are not used: {pins['none']}"
        if "none" in pins
        else f"pins fitted on {pins['pairs']} people: face against voice, EER "
        f"{100 * pins['cross_validated_eer']:.1f} % on people left out in turn"
    )
    return lines


def _encoders(options: ForeignOptions, run: Run | None) -> dict[str, ForeignEncoder]:
    from edgepin._errors import UsageError

    from ._foreign_open import open_face, open_voice
    from ._foreign_presets import FACE_PRESETS, VOICE_PRESETS, read_face_spec, read_voice_spec
    from ._foreign_run import encoder_of_run

    made: dict[str, ForeignEncoder] = {}
    for modality, presets in (("face", FACE_PRESETS), ("voice", VOICE_PRESETS)):
        path, spec = getattr(options, f"{modality}_onnx"), getattr(options, f"{modality}_spec")
        if path is None:
            if spec is not None:
                raise UsageError(
                    f"--{modality}-spec without --{modality}-onnx", hint="give the encoder that it is of"
                )
            if run is None:
                raise UsageError(
                    f"there is no {modality} encoder",
                    hint=f"give --{modality}-onnx, or the RUN whose {modality} encoder to take",
                )
            made[modality] = encoder_of_run(run, modality)
            continue
        if spec is None:
            raise UsageError(
                f"--{modality}-onnx without --{modality}-spec",
                hint=f"say what the encoder takes: a preset ({', '.join(presets)}) or a TOML file",
            )
        made[modality] = (
            open_face(path, read_face_spec(spec))
            if modality == "face"
            else open_voice(path, read_voice_spec(spec))
        )
    if options.face_onnx is None and options.voice_onnx is None:
        raise UsageError(
            "--fit is for encoders that were trained elsewhere", hint="give --face-onnx or --voice-onnx"
        )
    return made


def _fit_people(options: ForeignOptions, run: Run | None, people: CalibrationPeople) -> FitPeople | None:
    """Those given; else those whom the run was trained on; else None."""
    from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
    from edgepin._errors import UsageError
    from edgepin_training.corpus import list_captures

    from ._foreign_people import FitPeople

    faces = options.fit_faces or (options.fit and options.fit / "faces")
    voices = options.fit_voices or (options.fit and options.fit / "voices")
    if (faces is None) != (voices is None):
        # The other modality's come from where the calibration people come from.
        faces, voices = faces or people.faces, voices or people.voices
    elif faces is None and run is not None:
        sources = run.corpus.get("sources") or {}
        if not sources:
            raise UsageError(f"{run.path} does not say where its captures are", hint="give --fit")
        faces, voices = Path(sources["faces"]), Path(sources["voices"])
    if faces is None or voices is None:
        return None
    held = set((run.corpus.get("held_out") or {}) if run is not None else ())
    held_faces = set((run.corpus.get("held_out") or {}).values() if run is not None else ())
    found_faces = _others(
        list_captures(faces, IMAGE_SUFFIXES), faces == people.faces, people.pairs.values(), held_faces
    )
    found_voices = _others(list_captures(voices, SOUND_SUFFIXES), voices == people.voices, people.pairs, held)
    pairs = tuple((name, name) for name in sorted(set(found_faces) & set(found_voices)))
    return FitPeople(found_faces, found_voices, pairs)


def _others(
    files: dict[str, list[Path]], shared: bool, calibrated: Any, held: set[str]
) -> dict[str, list[Path]]:
    """Files of people who are not calibrated on, where the folder is that of the calibration, and not held out."""
    gone = held | (set(calibrated) if shared else set())
    return {name: paths for name, paths in files.items() if name not in gone}


def _about(run: Run | None) -> dict[str, Any]:
    if run is None:
        return {}
    corpus = {name: value for name, value in run.corpus.items() if name not in ("sources", "held_out")}
    return {"run": {"config": run.config.to_json(), "corpus": corpus, "steps": run.step}}
