"""What `edgepin train` trains on when it is given an index or shards."""

from __future__ import annotations

from pathlib import Path

from ..config import TrainConfig
from ..corpus import Corpus, hold_out
from ..sampler import Sampler
from .index import read_index
from .lazy import open_corpus
from .shards import open_shards
from .stream import ShardSampler


def open_data(index: Path | None, shards: str | None, config: TrainConfig) -> tuple[Corpus, Sampler | None]:
    """The corpus of an index, or of shards with what draws from them.

    Of an index with official splits it is the training people, whose share `hold_out` is kept apart as of any corpus; not
    where their captures lie under several folders of people, which the export could not read again, and not of shards,
    which are read whole: there the export needs calibration people.
    """
    if shards is not None:
        sampler = ShardSampler(open_shards(shards), config)
        return sampler.whole, sampler
    assert index is not None
    opened = read_index(index)
    corpus = open_corpus(opened, config.face_spec, split="train" if opened.has_splits else None)
    if any(len(places) != 1 for places in opened.places.values()):
        return corpus, None
    return hold_out(corpus, config.hold_out, config.seed), None
