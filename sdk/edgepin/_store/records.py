"""The records of one person, in the clear: templates by modality, the consent, and the dates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import _canonical_json
from .._errors import UsageError
from .consent import Consent, iso
from .envelope import Sealed, SubjectKey
from .template import Template, pack_template, unpack_template

TEMPLATE, CONSENT, DATES = "template", "consent", "dates"


class Records(dict[tuple[str, str], bytes]):
    """Plain bytes by modality and kind; of one person, all or those of a kind."""

    @property
    def templates(self) -> dict[str, Template] | None:
        """By modality; None if there are none."""
        found = {
            modality: unpack_template(data)
            for (modality, kind), data in sorted(self.items())
            if kind == TEMPLATE
        }
        return found or None

    @property
    def consent(self) -> Consent | None:
        data = self.get(("", CONSENT))
        return None if data is None else Consent.unpack(data)

    def to_json(self) -> dict[str, Any]:
        """All of it for JSON."""
        dates, consent = _dates(self.get(("", DATES))), self.consent
        return {
            "enrolled_at": iso(dates["enrolled_at"]),
            "updated_at": iso(dates["updated_at"]),
            "consent": None if consent is None else consent.to_json(),
            "templates": {
                modality: template.to_json() for modality, template in (self.templates or {}).items()
            },
        }


def new_records(templates: Mapping[str, Template], consent: Consent | None, now: int) -> Records:
    """What an enrollment puts in. Raises `UsageError` for templates that cannot be right, or none."""
    plain = Records(
        ((modality, TEMPLATE), pack_template(modality, template)) for modality, template in templates.items()
    )
    if not plain:
        raise UsageError("an enrollment needs at least one template")
    plain["", DATES] = _canonical_json.encode({"enrolled_at": now, "updated_at": now})
    if consent is not None:
        plain["", CONSENT] = consent.pack()
    return plain


def with_captures(
    key: SubjectKey, records: Iterable[Sealed], templates: Mapping[str, Template], now: int
) -> list[Sealed]:
    """A person's records with more captures. Raises `UsageError` if that makes too many of a modality."""
    kept = {(record.modality, record.kind): record for record in records}
    for modality, template in templates.items():
        old = kept.get((modality, TEMPLATE))
        whole = template if old is None else unpack_template(key.unseal(old)).with_captures(template)
        kept[modality, TEMPLATE] = key.seal(modality, TEMPLATE, pack_template(modality, whole))
    dates = _dates(key.unseal(kept["", DATES]) if ("", DATES) in kept else None)
    kept["", DATES] = key.seal("", DATES, _canonical_json.encode({**dates, "updated_at": now}))
    return list(kept.values())


def are_templates(key: SubjectKey, records: Iterable[Sealed], templates: Mapping[str, Template]) -> bool:
    """Whether a person's records hold just these templates."""
    kept = opened(key, records, TEMPLATE).templates or {}
    return kept.keys() == templates.keys() and all(kept[name].equals(templates[name]) for name in kept)


def opened(key: SubjectKey, records: Iterable[Sealed], kind: str | None = None) -> Records:
    """The records of a kind, or all. Raises `StoreError` if one was altered."""
    return Records(
        ((record.modality, record.kind), key.unseal(record))
        for record in records
        if kind is None or record.kind == kind
    )


def _dates(data: bytes | None) -> dict[str, int | None]:
    # A store of schema 1 kept none.
    known: dict[str, int | None] = {} if data is None else _canonical_json.decode(data)
    return {"enrolled_at": None, "updated_at": None, **known}
