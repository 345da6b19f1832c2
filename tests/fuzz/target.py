"""What is fuzzed: one decoder or parser, valid inputs for it, how to damage them, and what may come of it."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from edgepin import EdgePinError
from edgepin._safe_text import unsafe_character

from .bytes_mutations import Mutator, spliced

MAX_MESSAGE = 2000
"""Characters of an error: what a hostile file says is quoted, not poured out."""


class FindingError(AssertionError):
    """A case broke a property: an error that is not ours, something accepted, too much memory or time."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One thing that takes bytes from outside.

    `run` takes them. It may return, or raise one of EdgePIN's errors; it raises `FindingError` (or anything else) where a
    property does not hold.
    """

    name: str
    about: str
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutator
    run: Callable[[bytes], object]
    share: float = 1.0
    """How many cases of it there are beside the others in a run over all targets."""
    seconds: float = 5.0
    """What a case may take of the processor's time."""
    mebibytes: int = 256
    """What its memory may grow by at most."""
    needs: str = ""
    """A module without which there is no such target here."""

    @property
    def missing(self) -> bool:
        return bool(self.needs) and importlib.util.find_spec(self.needs) is None

    @functools.cached_property
    def valid(self) -> list[bytes]:
        """The seeds, made once."""
        return list(self.seeds())

    def case(self, random: Random) -> bytes:
        """A damaged seed; one in twenty is spliced of two."""
        data = random.choice(self.valid)
        if random.random() < 0.05:
            data = spliced(random, data, self.valid)
        return self.mutate(random, data)

    def check(self, data: bytes) -> str:
        """Runs one case and says what came of it: `taken`, or the name of the error. Raises what may not come."""
        try:
            self.run(data)
        except EdgePinError as error:
            return _checked(error)
        return "taken"


def _checked(error: EdgePinError) -> str:
    text = f"{error} {error.hint or ''}"
    if len(text) > MAX_MESSAGE:
        raise FindingError(f"the message has {len(text)} characters") from error
    character = unsafe_character(text)
    if character is not None:
        raise FindingError(f"the message has the character {character}") from error
    if error.exit_code not in (2, 3, 5, 6):
        raise FindingError(f"a bad input ends with exit code {error.exit_code}") from error
    return type(error).__name__


def expect(condition: object, words: str) -> None:
    """A property; unlike `assert` it holds under `python -O` too."""
    if not condition:
        raise FindingError(words)


@functools.lru_cache(maxsize=1)
def shared_folder() -> Path:
    """Where this process and those that it forks keep files; in memory where there is such a place."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="edgepin-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def folder() -> Path:
    """A folder of this process alone."""
    own = shared_folder() / str(os.getpid())
    own.mkdir(exist_ok=True)
    return own


def in_file(name: str, data: bytes, mode: int = 0o600) -> Path:
    """The bytes as a file in `folder`."""
    path = folder() / name
    path.write_bytes(data)
    path.chmod(mode)
    return path
