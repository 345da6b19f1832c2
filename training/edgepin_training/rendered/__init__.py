"""Rendered people: a corpus of synthetic faces and voices with known identity factors, made without any download.

    people = make_people(10, seed=1)
    render_face(people[0], capture_seed=7).image      # uint8 RGB (192, 192, 3), and the eye centers
    render_voice(people[0], capture_seed=7)           # int16, 16 kHz
    write_corpus(Path("corpus"), people=150, seed=1)  # a folder corpus for training

It is an instrument that measures methods, and no substitute for real people: see `_people` for what face and voice
share and how much of it can be known.
"""

from ._corpus import write_corpus
from ._face import RenderedFace, eye_centers, render_face
from ._gait import GAIT_SHAPE, render_gait
from ._oracle import cross_modal_llr, oracle_auc, oracle_scores
from ._people import (
    EXPRESSION,
    FACE_FACTORS,
    GENERATOR_VERSION,
    SETTINGS,
    SHARED_FACTORS,
    VOICE_FACTORS,
    Person,
    Setting,
    capture_seed,
    make_people,
    make_person,
)
from ._voice import render_voice

__all__ = [
    "EXPRESSION",
    "FACE_FACTORS",
    "GAIT_SHAPE",
    "GENERATOR_VERSION",
    "SETTINGS",
    "SHARED_FACTORS",
    "VOICE_FACTORS",
    "Person",
    "RenderedFace",
    "Setting",
    "capture_seed",
    "cross_modal_llr",
    "eye_centers",
    "make_people",
    "make_person",
    "oracle_auc",
    "oracle_scores",
    "render_face",
    "render_gait",
    "render_voice",
    "write_corpus",
]
