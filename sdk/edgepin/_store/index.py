"""The index of a store: one number over everything in it, so that nothing comes, goes or ages alone.

A keyed multiset hash: the sum modulo 2**256 of HMAC-SHA256 over each entry (MSet-Add-Hash of Clarke, Devadas, van
Dijk, Gassend and Suh, ASIACRYPT 2003). An entry is a person with the seals of all records, or a tombstone. One
entry is changed by one subtraction and one addition, whatever the number of people. The sum itself stays in memory;
the file has only an HMAC of it, so that nobody learns a single term.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from .._errors import StoreError
from .envelope import ID_BYTES, SEAL_BYTES, WRAPPED_BYTES, Person, Sealed, bind

_MODULUS = 1 << 256


class Index:
    """The terms of a store by what they stand for: a subject, or the mark of a tombstone."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._people: dict[str, int] = {}
        self._tombstones: dict[bytes, int] = {}
        self._sum = 0

    @property
    def subjects(self) -> Iterable[str]:
        return self._people.keys()

    @property
    def total(self) -> int:
        """The sum over everything."""
        return self._sum % _MODULUS

    def __contains__(self, subject: str) -> bool:
        return subject in self._people

    def __len__(self) -> int:
        return len(self._people)

    def put(self, person: Person, seals: bytes) -> None:
        """Enters a person in place of the one of that name. `seals` is what `seals_of` gives of all records."""
        self.remove(person.subject)
        term = self._term(person, seals)
        self._people[person.subject] = term
        self._sum += term

    def remove(self, subject: str) -> None:
        self._sum -= self._people.pop(subject, 0)

    def bury(self, mark: bytes, erased_at: int) -> None:
        """Enters a tombstone, once."""
        self._sum -= self._tombstones.get(mark, 0)
        term = self._hash(bind("tombstone", mark, str(erased_at)))
        self._tombstones[mark] = term
        self._sum += term

    def holds(self, person: Person, seals: bytes) -> bool:
        """Whether this is the person as entered."""
        return self._people.get(person.subject) == self._term(person, seals)

    def tag(self, about: bytes) -> bytes:
        """What the file keeps: an HMAC of the sum and of `about`, the store itself."""
        total = self.total.to_bytes(32, "big")
        return hmac.digest(self._key, bind("index", about, total), "sha256")

    def _term(self, person: Person, seals: bytes) -> int:
        subject, key_id, wrapped = person
        if len(key_id) != ID_BYTES or len(wrapped) != WRAPPED_BYTES:
            raise _altered()
        # All that comes before the subject has a fixed length, and the seals divide themselves.
        return self._hash(b"person" + key_id + wrapped + bind(subject) + seals)

    def _hash(self, entry: bytes) -> int:
        return int.from_bytes(hmac.digest(self._key, entry, "sha256"), "big")


_NAMES: dict[tuple[str, str], bytes] = {}


def named_seal(modality: str, kind: str, seal: bytes) -> bytes:
    """A record's name and seal. Raises `StoreError` if they are none."""
    name = _NAMES.get((modality, kind))
    if name is None:
        if not (isinstance(modality, str) and isinstance(kind, str)):
            raise _altered()
        name = bind(modality, kind)
        if len(_NAMES) < 64:  # there are a handful; a damaged file may make up others
            _NAMES[modality, kind] = name
    if type(seal) is not bytes or len(seal) != SEAL_BYTES:
        raise _altered()
    return name + seal


def seals_of(records: Iterable[Sealed]) -> bytes:
    """The names and seals of a person's records, in the order of their names."""
    return b"".join(named_seal(*record[:3]) for record in sorted(records))


def _altered() -> StoreError:
    return StoreError(
        "the store was altered: a value is not what was put in", hint="restore the store from a backup"
    )
