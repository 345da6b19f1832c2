"""The best that any cross-modal score can do on rendered people: an oracle that sees the factors themselves.

A person's face and voice are compared through the factors that both express. The oracle knows these exactly (no capture, no
private factor stands between), and how they were drawn, so by Neyman and Pearson no score separates genuine from impostor
pairs better than its likelihood ratio. What a method reaches is held against that: (AUC - 0.5) / (oracle - 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._people import Person, Setting


def cross_modal_llr(face: np.ndarray, voice: np.ndarray, setting: Setting) -> np.ndarray:
    """ln p(face, voice | one person) / p(face, voice | two): float64 `(...)` of expressed factors `(..., 4)`.

    Factor k is normal in both, correlated by r = a[k]² in one person and independent in two, so its part is

        -½ ln(1 - r²) - (r² (x² + y²) - 2 r x y) / (2 (1 - r²))

    Raises `ValueError` at difficulty 0, where the ratio is infinite or nothing.
    """
    r = _correlations(setting)
    quadratic = r**2 * (face**2 + voice**2) - 2 * r * face * voice
    return np.asarray((-0.5 * np.log1p(-(r**2)) - quadratic / (2 * (1 - r**2))).sum(axis=-1))


def oracle_auc(setting: Setting) -> float:
    """The AUC of `cross_modal_llr` over the whole population, to about 1e-6.

    With u, v = (x ± y) / √2 a factor's part is, but for a constant, r/2 (u² / (1 + r) - v² / (1 - r)); u and v are
    independent, of variances 1 ± r in one person and 1 in two. A genuine score less an impostor's is thus a sum of chi-squares
    with the weights r/2, -r/2, -r/2 / (1 + r), r/2 / (1 - r), and the AUC the probability that it is positive: Imhof 1961
    (Biometrika 48:419), eq. 3.2.
    """
    if setting.difficulty == 0:
        return 1.0
    r = _correlations(setting)
    weights = np.concatenate([r, -r, -r / (1 + r), r / (1 - r)]) / 2
    # u = tan²(t): even steps of t reach from the finest to the widest scale of the integrand.
    t = (np.arange(40000) + 0.5) / 40000 * np.pi / 2
    u = np.tan(t) ** 2
    steps = 2 * np.tan(t) / np.cos(t) ** 2 * (np.pi / 2 / len(t))
    scaled = weights[:, None] * u
    angle = 0.5 * np.arctan(scaled).sum(axis=0)
    damping = np.exp(0.25 * np.log1p(scaled**2).sum(axis=0))
    return float(0.5 + (np.sin(angle) / (u * damping) * steps).sum() / np.pi)


def oracle_scores(faces: Sequence[Person], voices: Sequence[Person]) -> np.ndarray:
    """The oracle's score of each face (rows) with each voice (columns): float64. All people are of one setting."""
    settings = {person.setting for person in (*faces, *voices)}
    if len(settings) != 1:
        raise ValueError("the oracle needs people of one setting")
    face = np.array([person.expressed("face") for person in faces])[:, None]
    voice = np.array([person.expressed("voice") for person in voices])[None, :]
    return cross_modal_llr(face, voice, settings.pop())


def _correlations(setting: Setting) -> np.ndarray:
    if setting.difficulty == 0:
        raise ValueError(
            "at difficulty 0 face and voice agree perfectly: there is no finite likelihood ratio"
        )
    return np.square(setting.expression)
