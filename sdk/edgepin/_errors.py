"""Every error that EdgePIN raises on purpose.

EdgePinError
├── UsageError             2  an argument cannot be right; correct the call
│   ├── AlreadyEnrolledError  the id has templates; choose another or replace it knowingly
│   └── PolicyError           the policy is stricter than the bundle's evidence; calibrate or relax it
├── UnknownSubjectError    1  the id has no templates (verification never raises it: it would tell who is enrolled)
├── CaptureError           3  the image or sound cannot be used; `code` says why; capture again
├── LockedOutError         4  too many failures; wait, or use the other factor
├── IntegrityError         5  something was altered, or does not belong together; do not use it
│   ├── BundleError           the bundle
│   └── StoreError            the store
└── EnvironmentFault       6  this machine lacks something; the hint says what to do
    ├── BundleNotFoundError   there is no bundle at that place
    ├── DeadlineExceededError there was no answer in time; the door stays closed
    └── MissingExtraError     an optional part of the package is not installed

The number is the command's exit code (docs/command.md).
"""

from __future__ import annotations

from typing import ClassVar


class EdgePinError(Exception):
    """The root: catching it catches everything that EdgePIN raises on purpose.

    `hint` says what to do next, where there is something to do.
    """

    exit_code: ClassVar[int] = 6

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(EdgePinError):
    """An argument cannot be right; correct the call."""

    exit_code = 2


class AlreadyEnrolledError(UsageError):
    """The id already has templates; choose another id, or replace it knowingly."""


class PolicyError(UsageError):
    """The policy asks for a lower false match rate than the evidence carries."""


class UnknownSubjectError(EdgePinError):
    """The id has no templates. Verification rejects instead of raising it, so as not to tell who is enrolled."""

    exit_code = 1


class CaptureError(EdgePinError):
    """An image or a sound cannot be used. `code` is the verdict (`too_short`, `no_face`, `damaged`, …)."""

    exit_code = 3

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class LockedOutError(EdgePinError):
    """Too many failures: wait, or use the other factor.

    `retry_after` is how many seconds to wait before the next attempt; None where waiting does not help. `disabled`
    says that face and voice are off for the id until someone unlocks it; the other factor never is.
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        disabled: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.disabled = disabled


class IntegrityError(EdgePinError):
    """Something was altered, or two things do not belong together. Nothing of it was used."""

    exit_code = 5


class BundleError(IntegrityError):
    """The bundle is damaged, altered, not trusted, or of a format that this version does not read."""


class StoreError(IntegrityError):
    """The store is damaged, altered, locked by another key, or belongs to another bundle."""


class EnvironmentFault(EdgePinError):
    """This machine lacks something that is needed; the hint says how to get it."""

    exit_code = 6


class BundleNotFoundError(EnvironmentFault):
    """There is no bundle at that place."""


class DeadlineExceededError(EnvironmentFault):
    """A verification took longer than its deadline. Nobody was accepted."""


class MissingExtraError(EnvironmentFault):
    """An optional part of the package is not installed; the hint names the extra."""
