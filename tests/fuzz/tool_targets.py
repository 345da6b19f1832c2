"""What operators and trainers hand to the tools: lists, tables, settings, archives of embeddings, command lines."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
from pathlib import Path
from random import Random

import numpy as np

from edgepin._decision.trials import paths_under, read_chimeras, read_trials
from edgepin.evaluation import evaluate_embeddings

from .bytes_mutations import NUMBERS, PIECES, damage_text
from .structure_mutations import damage_npz, damage_toml
from .target import FindingError, Target, expect, folder, in_file

# --- Lists and tables

_TRIALS = (
    b"1 ada/1.wav ada/2.wav\n0 ada/1.wav bob/1.wav\n\n0 bob/2.wav ada/2.wav\n",
    b"target\tann lee/1.wav\tann lee/2.wav\r\nnontarget\tann lee/1.wav\tbob/1.wav\r\n",
)
_CHIMERAS = (b"speaker\tsex\tface\n121\tF\tAda_Lovelace\n237\tM\tAlan_Turing\n", b"1\tF\tx\n")


@functools.lru_cache(maxsize=1)
def _root() -> Path:
    """A folder in which the files of the lists are."""
    root = folder() / "root"
    for name in ("ada/1.wav", "ada/2.wav", "bob/1.wav", "bob/2.wav", "ann lee/1.wav", "ann lee/2.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def _trials(data: bytes) -> None:
    read = read_trials(in_file("trials.txt", data))
    expect(
        len(read.labels) == len(read.enroll_index) == len(read.test_index) > 0, "lists of different lengths"
    )
    expect(max(read.enroll_index.max(), read.test_index.max()) < len(read.names), "an index beyond the names")
    root = _root()
    paths = paths_under(root, read.names)
    expect(
        all(path.resolve().is_relative_to(root) for path in paths.values()), "a path leads out of the root"
    )


def _chimeras(data: bytes) -> None:
    read = read_chimeras(in_file("chimeras.tsv", data))
    faces = [chimera.face for chimera in read.values()]
    expect(len(set(faces)) == len(faces) > 0, "two people with one face")
    expect(
        not any("/" in name or name in (".", "..") for name in (*read, *faces)),
        "a name leads out of its folder",
    )


@functools.lru_cache(maxsize=1)
def _archives() -> list[bytes]:
    made = []
    names = np.array(["ada/1.wav", "ada/2.wav", "bob/1.wav", "bob/2.wav"])
    for values in (np.eye(4, dtype=np.float32), np.arange(1, 13).reshape(4, 3)):
        for save in (np.savez, np.savez_compressed):
            target = io.BytesIO()
            save(target, names=names, embeddings=values)
            made.append(target.getvalue())
    return made


def _npz(data: bytes) -> None:
    trials = folder() / "npz-trials.txt"
    if not trials.exists():
        trials.write_bytes(_TRIALS[0])
    with np.errstate(all="ignore"):
        result = evaluate_embeddings(in_file("e.npz", data), trials)
    expect(0.0 <= result.eer <= 1.0 and 0.0 <= result.auc <= 1.0, "a rate that is none")


# --- Settings in TOML


def _foreign_face(data: bytes) -> None:
    from edgepin_export._foreign_presets import read_face_spec

    read = read_face_spec(str(in_file("face.toml", data)))
    expect(min(read.std) > 0 and 0 < read.crop.size <= 4096, "a spec that cannot be")
    json.dumps(read.to_json(), allow_nan=False)


def _foreign_voice(data: bytes) -> None:
    from edgepin_export._foreign_presets import read_voice_spec

    read = read_voice_spec(str(in_file("voice.toml", data)))
    expect(min(read.std) > 0 and read.log_mel.sample_rate == 16_000, "a spec that cannot be")
    json.dumps(read.to_json(), allow_nan=False)


def _train_config(data: bytes) -> None:
    from edgepin_training.config import TrainConfig

    read = TrainConfig.read(in_file("train.toml", data))
    expect(TrainConfig.from_json(read.to_json()) == read, "it does not come back")


def _configs() -> list[bytes]:
    import edgepin_training

    return [
        path.read_bytes()
        for path in sorted((Path(edgepin_training.__file__).parent / "configs").glob("*.toml"))
    ]


def _pairs(data: bytes) -> None:
    from edgepin_training.corpus import read_pairs

    read_pairs(in_file("pairs.tsv", data))


# --- Command lines: arguments with a null character between them

_LINES = (
    ("verify", "a", "--face", "f.png", "--voice", "v.wav", "--bundle", "b.pin", "--store", "s.db", "--policy-fmr", "0.05"),
    ("verify", "a", "--voice", "v.wav", "--allow-voice-alone", "--allow-unsigned", "--json", "--backend", "onnxruntime-cpu"),
    ("enroll", "a", "--face", "f.png", "--consent", "yes", "--key-file", "k.key", "--bundle", "b.pin", "--replace", "--json"),
    ("bundle", "inspect", "b.pin", "--json"),
    ("bundle", "verify", "b.pin", "--allow-unsigned", "--json"),
    ("evaluate", "embeddings", "--npz", "e.npz", "--trials", "t.txt", "--json"),
    ("evaluate", "verification", "--modality", "face", "--root", ".", "--trials", "t.txt", "--seconds", "3", "--bundle", "b.pin"),
    ("compile", "b.pin", "--dry-run", "--precision", "int8", "--workspace", "512", "--max-batch", "1", "--max-seconds", "3"),
    ("keygen", "--out", "signing.key", "--json"),
)  # fmt: skip
_VERBS = frozenset(line[0] for line in _LINES)


def _damage_line(random: Random, data: bytes) -> bytes:
    words = data.decode("utf-8", "surrogateescape").split("\0")
    for _ in range(random.randint(1, 3)):
        at, kind = random.randrange(len(words)), random.randrange(7)
        if kind == 0 and len(words) > 1:
            del words[at]
        elif kind == 1:
            words.insert(at, random.choice(words))
        elif kind == 2:
            words[at] = random.choice(PIECES)
        elif kind == 3:
            words[at] = str(random.choice((*NUMBERS, -1, 0.5, 1e-9, "nan", "inf", "-inf")))
        elif kind == 4:
            options = sorted({word for line in _LINES for word in line if word.startswith("--")})
            words.insert(at, random.choice(options))
        elif kind == 5:
            other = random.randrange(len(words))
            words[at], words[other] = words[other], words[at]
        else:
            words[at] = damage_text(random, words[at].encode("utf-8", "surrogateescape")).decode(
                "utf-8", "surrogateescape"
            )
    return "\0".join(words)[:10_000].encode("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=1)
def _desk() -> Path:
    """A folder with files by the names that the lines use, so that some of them get further."""
    from ..sdk.golden.make_golden import FOLDER
    from ..sdk.synthetic_captures import picture, png, voice, write_voice

    desk = folder() / "desk"
    desk.mkdir()
    (desk / "b.pin").write_bytes((FOLDER / "minimal.pin").read_bytes())
    (desk / "f.png").write_bytes(png(picture(1)))
    (desk / "e.npz").write_bytes(_archives()[0])
    (desk / "t.txt").write_bytes(_TRIALS[0])
    write_voice(desk / "v.wav", voice(1))
    return desk


def _line(data: bytes) -> None:
    """Any command line ends with a code of docs/command.md, without a traceback; stdout is empty, JSON or help."""
    from click.testing import CliRunner

    from edgepin._cli.main import main

    words = data.decode("utf-8", "surrogateescape").split("\0")
    if (
        words[0] not in _VERBS
    ):  # verbs that train, render and demonstrate take minutes, however well they parse
        return
    desk = _desk()
    before = os.getcwd()
    os.chdir(desk)
    try:
        os.environ["EDGEPIN_HOME"] = str(desk / "home")
        result = CliRunner().invoke(main, words)
    finally:
        os.chdir(before)
        for name in ("signing.key", "signing.pub", "signing.key.pub"):
            with contextlib.suppress(OSError):
                (desk / name).unlink()
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise FindingError(f"{type(result.exception).__name__}: {result.exception}") from result.exception
    expect(result.exit_code in (0, 1, 2, 3, 5, 6), f"exit code {result.exit_code}")
    expect(
        not (result.exit_code == 0 and words[0] == "verify" and "--help" not in words and "-h" not in words),
        "accepted",
    )
    if "--json" in words and "--help" not in words and result.stdout.startswith("{"):
        json.loads(result.stdout)


TARGETS = (
    Target("trials", "`read_trials`, and the paths of its names", lambda: _TRIALS, damage_text, _trials, share=4.0),
    Target("chimeras", "`read_chimeras`", lambda: _CHIMERAS, damage_text, _chimeras, share=4.0),
    Target("npz", "`evaluate_embeddings` on archives of embeddings", _archives, damage_npz, _npz),
    Target("foreign-face", "face specs of foreign encoders",
           lambda: [b'preset = "arcface-112"\nsize = 112\nmean = [127.5, 127.5, 127.5]\nchannels = "bgr"\n',
                    b"size = 96\nleft_eye = [0.35, 0.46]\nright_eye = [0.66, 0.46]\nstd = 128.0\nlayout = 'nhwc'\n"],
           damage_toml, _foreign_face, share=2.0, needs="edgepin_export._foreign_presets"),
    Target("foreign-voice", "voice specs of foreign encoders",
           lambda: [b'preset = "wespeaker"\nframes = 200\nhop = 100\nlayout = "nmt"\n'
                    b'[log_mel]\nwindow = "povey"\nnum_mels = 80\n',
                    b'log_mel = "nemo"\nmean = 0.5\nstd = 2.0\nlengths = "n"\n'],
           damage_toml, _foreign_voice, share=2.0, needs="edgepin_export._foreign_presets"),
    Target("train-config", "`TrainConfig.read`", _configs, damage_toml, _train_config, share=2.0,
           needs="edgepin_training.config"),
    Target("pairs", "`read_pairs`", lambda: [b"speaker\tface\tsex\n1\tada\tF\n2\tbob\tM\n"], damage_text, _pairs,
           share=2.0, needs="edgepin_training.corpus"),
    Target("command-line", "the command with any arguments",
           lambda: ["\0".join(line).encode() for line in _LINES], _damage_line, _line, share=0.2, mebibytes=512),
)  # fmt: skip
