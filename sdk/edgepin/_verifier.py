"""`Verifier`: enroll a person, verify a person. The whole device in one object."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._bundle.bundle import Bundle
from ._capture.faces import FaceFinder, HaarFinder
from ._decision.fusion import Fusion, Scores
from ._decision.policy import Policy, Reason, ResolvedPolicy, decide, resolve
from ._errors import AlreadyEnrolledError, EnvironmentFault, UsageError
from ._paths import enrollments_path, store_key_path
from ._pipeline import Embedding, ImageSource, Pipeline, SoundSource, Timings
from ._runtime.backends import close_runtime, open_runtime
from ._runtime.runtime import Runtime
from ._store.keys import KeyFile, KeyProvider
from ._store.store import Store
from ._store.template import Template, check_subject


@dataclass(frozen=True)
class Decision:
    """The answer to one attempt.

    `llr` is the fused log-likelihood ratio (natural logarithm), accepted at `threshold` and above, if every captured
    modality clears its floor. `fmr` is the false match rate that the policy promises, on the bundle's evidence.
    They are None where nothing could be decided, which is a rejection.
    `scores` are cosines, `timings` milliseconds by stage.
    """

    accepted: bool
    llr: float | None
    threshold: float | None
    fmr: float | None
    reasons: tuple[Reason, ...]
    scores: Scores
    timings: dict[str, float] = field(compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "llr": _rounded(self.llr),
            "threshold": _rounded(self.threshold),
            "policy_fmr": self.fmr,
            "reasons": [{"code": reason.code, "text": reason.text} for reason in self.reasons],
            "scores": {name: _rounded(value) for name, value in vars(self.scores).items()},
            "timings_ms": {name: round(value, 3) for name, value in self.timings.items()},
        }


class Enrollment:
    """Collects the captures of one person; written to the store as a whole when its `with` block ends.

    An exception inside the block discards it. A capture that is refused raises CaptureError and leaves the others.
    """

    def __init__(self, verifier: Verifier, subject: str, consent: str | None, replace: bool) -> None:
        self.subject, self._verifier, self._consent, self._replace = subject, verifier, consent, replace
        self._captures: dict[str, list[Embedding]] = {"face": [], "voice": []}

    def add_face(self, image: ImageSource, *, cropped: bool = False) -> None:
        """An image as path, bytes or uint8 RGB (H, W, 3); `cropped` says that it is a face crop already."""
        self._captures["face"].append(self._verifier.pipeline.face(image, cropped=cropped))

    def add_voice(self, sound: SoundSource, *, sample_rate: int | None = None) -> None:
        """A sound as path, bytes or an array (samples,) or (samples, channels) with its `sample_rate` in Hz."""
        self._captures["voice"].append(self._verifier.pipeline.voice(sound, sample_rate=sample_rate))

    def commit(self) -> None:
        """Writes the templates. Without a capture it is a UsageError."""
        templates = {
            modality: Template(
                np.stack([embedding.identity for embedding in embeddings]),
                np.stack([embedding.pin for embedding in embeddings]),
            )
            for modality, embeddings in self._captures.items()
            if embeddings
        }
        if not templates:
            raise UsageError("nothing was captured, so nothing was enrolled")
        self._verifier.store.put(self.subject, templates, self._consent, replace=self._replace)

    def __enter__(self) -> Enrollment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()


class Verifier:
    """Enrolls people and verifies them. Open it once and keep it; `verify` may be called from several threads.

    Build it with `Verifier.open`, or from parts of your own: any `Pipeline`, `Store` and `Fusion`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        fusion: Fusion,
        policy: Policy | None = None,
        *,
        about: str = "",
    ) -> None:
        self.pipeline, self.store, self.fusion = pipeline, store, fusion
        self.policy: ResolvedPolicy = resolve(policy or Policy(), fusion)
        self.about = about
        """Which backend and precision run, and why."""

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        store: str | Path | None = None,
        *,
        policy: Policy | None = None,
        backend: str = "auto",
        require: str | None = None,
        precision: str = "auto",
        allow_unsigned: bool = False,
        finder: FaceFinder | None = None,
        key: KeyProvider | None = None,
        store_must_exist: bool = False,
    ) -> Verifier:
        """Opens a bundle and a store (default: this user's), everything checked before anything runs.

        `backend` is `auto` (the best that runs here, chosen now and not again), `tensorrt`, `onnxruntime-cuda`,
        `onnxruntime-tensorrt` or `onnxruntime-cpu`; `require` is None, `tensorrt` or `gpu`, and forbids anything less;
        `precision` is `auto` (the fastest on this device of those that the bundle has), `fp32`, `fp16` or `int8`.
        `about` says what was chosen, and why nothing better.

        Raises BundleNotFoundError, BundleError, StoreError, PolicyError (stricter than the evidence),
        EnvironmentFault (a backend that is named or required and cannot run here), IntegrityError (an engine in the
        cache was altered).
        """
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(bundle, allow_unsigned=allow_unsigned)
        path = Path(store) if store is not None else enrollments_path()
        if store_must_exist and not path.exists():
            raise EnvironmentFault(
                f"there is no store at {path}", hint="enroll someone first: edgepin enroll ID …"
            )
        fusion = Fusion.from_json(bundle.manifest.fusion)
        resolve(
            policy or Policy(), fusion
        )  # a policy that cannot be is refused before a store is made for it
        chosen = open_runtime(bundle, backend=backend, require=require, precision=precision)
        try:
            pipeline = make_pipeline(bundle, chosen.runtime, finder)
            opened = Store.open(path, key or KeyFile(store_key_path()), bundle.digest)
        except BaseException:
            close_runtime(chosen.runtime)
            raise
        return cls(pipeline, opened, fusion, policy, about=chosen.about)

    def enroll(self, subject: str, *, consent: str | None = None, replace: bool = False) -> Enrollment:
        """Starts an enrollment, to be used in a `with` block. Raises AlreadyEnrolledError unless `replace`."""
        check_subject(subject)
        if not replace and self.store.get(subject) is not None:
            raise AlreadyEnrolledError(
                f"{subject!r} is enrolled already",
                hint="choose another id, or replace it knowingly (replace=True, --replace)",
            )
        return Enrollment(self, subject, consent, replace)

    def verify(
        self,
        subject: str,
        *,
        face: ImageSource | None = None,
        voice: SoundSource | None = None,
        sample_rate: int | None = None,
        cropped: bool = False,
    ) -> Decision:
        """Whether the captures are `subject`'s. An unknown id is rejected like a stranger.

        Raises CaptureError for a capture that cannot be used, UsageError without any, StoreError for altered templates.
        """
        check_subject(subject)
        if face is None and voice is None:
            raise UsageError("nothing to verify with", hint="give a face, a voice, or both")
        timings = Timings()
        probe: dict[str, Embedding] = {}
        if face is not None:
            probe["face"] = self.pipeline.face(face, cropped=cropped, timings=timings)
        if voice is not None:
            probe["voice"] = self.pipeline.voice(voice, sample_rate=sample_rate, timings=timings)
        with timings.stage("decide"):
            templates = self.store.get(subject)
            scores = compare(templates if templates is not None else _decoy(subject), probe)
            if scores.face is None and scores.voice is None:
                reason = Reason("no_common_modality", "what was captured is not what is enrolled")
                return Decision(False, None, None, None, (reason,), scores, timings.stages)
            verdict = decide(scores, self.fusion, self.policy)
        accepted = verdict.accepted and templates is not None
        reasons = verdict.reasons
        if verdict.accepted and not accepted:  # a decoy that matched: as good as never, and still a rejection
            reasons = (Reason("below_threshold", "the scores do not reach the policy's threshold"),)
        return Decision(
            accepted, verdict.llr, verdict.threshold, verdict.fmr, reasons, scores, timings.stages
        )

    def close(self) -> None:
        self.store.close()
        close_runtime(self.pipeline.runtime)

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_pipeline(
    bundle: Bundle,
    *,
    precision: str = "auto",
    finder: FaceFinder | None = None,
    backend: str = "auto",
    require: str | None = None,
) -> Pipeline:
    """The bundle's encoders behind its own front-end and crop geometry. Raises as `Verifier.open`."""
    chosen = open_runtime(bundle, backend=backend, require=require, precision=precision)
    return make_pipeline(bundle, chosen.runtime, finder)


def make_pipeline(bundle: Bundle, runtime: Runtime, finder: FaceFinder | None = None) -> Pipeline:
    """A runtime of the bundle's encoders behind the bundle's front-end and crop geometry."""
    manifest = bundle.manifest
    return Pipeline(runtime, finder or HaarFinder(), manifest.face, manifest.log_mel)


def compare(templates: dict[str, Template], probe: dict[str, Embedding]) -> Scores:
    """The four cosines. Over several enrolled captures each is the mean: its spread among impostors is
    never wider than that of the single comparisons that thresholds are calibrated on.
    """

    def score(enrolled: str, captured: str, head: str) -> float | None:
        if enrolled not in templates or captured not in probe:
            return None
        rows: NDArray[np.float32] = getattr(templates[enrolled], head)
        return float(np.mean(rows @ getattr(probe[captured], head)))

    return Scores(
        face=score("face", "face", "identity"),
        voice=score("voice", "voice", "identity"),
        face_voice=score("face", "voice", "pin"),
        voice_face=score("voice", "face", "pin"),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 4)


def _decoy(subject: str) -> dict[str, Template]:
    """A template of nobody, so that an unknown id takes the same way to its rejection as a known one."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "little"))
    rows = rng.standard_normal((4, 1, 256)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    return {"face": Template(rows[0], rows[1]), "voice": Template(rows[2], rows[3])}
