"""The bytes behind a capture: a path or bytes in, bytes of a bounded size out."""

from __future__ import annotations

from pathlib import Path

from .._errors import CaptureError, UsageError


def read_bounded(source: str | Path | bytes, *, max_bytes: int, kind: str) -> bytes:
    """The bytes of `source`, at most `max_bytes` of them; `kind` ("sound", "image") is for the messages.

    Raises `UsageError` where there is no such file or it cannot be read, and `CaptureError` for an empty
    (`damaged`) or too large (`too_large`) one, before anything is decoded.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), f"the {kind}"
    elif isinstance(source, (str, Path)):
        data, name = _read_file(Path(source), max_bytes, kind), str(source)
    else:
        raise UsageError(f"the {kind} must be a path or bytes, not {type(source).__name__}")
    if len(data) > max_bytes:
        raise CaptureError(
            f"{name} is larger than {max_bytes >> 20} MiB",
            code="too_large",
            hint=f"give a smaller {kind} file",
        )
    if not data:
        raise CaptureError(f"{name} is empty", code="damaged", hint="capture it again")
    return data


def _read_file(path: Path, max_bytes: int, kind: str) -> bytes:
    try:
        # One byte over the cap is enough to refuse, and bounds what a device file or a pipe can deliver.
        with path.open("rb") as stream:
            return stream.read(max_bytes + 1)
    except FileNotFoundError:
        raise UsageError(f"no such {kind} file: {path}", hint="check the path") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder, not a {kind} file", hint="name one file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise UsageError(
            f"{path} cannot be read: {error}", hint="check the path and its permissions"
        ) from None
