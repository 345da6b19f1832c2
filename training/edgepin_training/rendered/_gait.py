"""How a rendered person walks: a third modality, for what trains on more than two.

Eight joints swing at the person's cadence; size slows and lengthens the steps, age shortens them, sex and build sway the
hips. Like face and voice, the gait expresses the shared factors with residuals of its own. Pace, phase and noise are
the capture's.
"""

from __future__ import annotations

import numpy as np

from ._people import Person

GAIT_SHAPE = (50, 8)
"""Frames, 25 a second, by joints."""


def render_gait(person: Person, capture_seed: int) -> np.ndarray:
    """One capture: float32 `GAIT_SHAPE`, angles of about ±1; same arguments, same numbers."""
    # The residuals are drawn from the shared factors' own bits, so that they are the person's and need no place in it.
    own = np.random.default_rng(np.frombuffer(person.shared.tobytes(), np.uint32))
    a = np.array(person.setting.expression)
    size, sex, age, build = a * person.shared + np.sqrt(1 - a * a) * own.standard_normal(len(a))
    habit = 0.25 * person.setting.private * own.standard_normal(4)
    rng = np.random.default_rng([0x6A17, capture_seed])
    frames, joints = GAIT_SHAPE
    cadence = 1.7 * np.exp(-0.10 * size - 0.04 * age + 0.04 * habit[0] + 0.02 * rng.standard_normal())
    phase = 2 * np.pi * (cadence * np.arange(frames)[:, None] / 25 + rng.uniform() + np.arange(joints) / 2)
    swing = np.exp(0.12 * size - 0.25 * age + 0.1 * habit[1]) * np.linspace(0.6, 0.3, joints)
    sway = 0.25 * np.exp(0.35 * sex + 0.1 * habit[2]) * np.linspace(0.0, 1.0, joints)
    stance = 0.25 * build + 0.1 * habit[3]
    walk = swing * np.sin(phase) + sway * np.sin(2 * phase) + stance * np.linspace(1.0, 0.2, joints)
    return np.asarray(walk + 0.05 * rng.standard_normal(GAIT_SHAPE), np.float32)
