"""Weighted logistic regression with a small L2 penalty and lower bounds on the weights.

The minimizer is projected Newton (Bertsekas, "Projected Newton methods for optimization problems with simple
constraints", SIAM J. Control 20(2), 1982): coordinates held at their bound by the gradient are left out of
the Newton system, and the step is projected back into the bounds with Armijo's rule. The problem is strictly
convex and has a handful of unknowns, so a dozen steps are typical.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_MAX_STEPS = 100
# The squared Newton decrement estimates how far the loss (of order 1) is from its minimum. Below this the
# step is taken on trust, for a smaller decrease drowns in rounding; it squares the error once more.
_CLOSE_ENOUGH = 1e-9
_AT_BOUND = 1e-9


def fit_logistic(
    features: FloatArray,
    genuine: NDArray[np.bool_],
    trial_weights: FloatArray,
    *,
    l2: float,
    lower: FloatArray,
) -> tuple[FloatArray, float]:
    """Fit `log odds = features @ weights + intercept`.

    `features` is (trials, features), best standardized; `genuine` (trials,); `trial_weights` (trials,) sum to
    1; `l2 > 0` multiplies half the squared weights (not the intercept) and keeps separable data finite;
    `lower` (features,) bounds each weight from below (-inf for no bound). Returns `(weights, intercept)`.
    Where genuine and impostor trials each carry half of `trial_weights`, the log odds are a log-likelihood
    ratio.
    """
    design = np.column_stack([features, np.ones(len(features))])
    signs = np.where(genuine, 1.0, -1.0)
    bounds = np.append(lower, -np.inf)
    penalty = np.append(np.full(features.shape[1], l2), 0.0)
    solution = np.where(np.isfinite(bounds), np.maximum(bounds, 0.0), 0.0)

    def loss(candidate: FloatArray) -> float:
        margins = signs * (design @ candidate)
        return float(trial_weights @ np.logaddexp(0.0, -margins) + 0.5 * penalty @ candidate**2)

    current = loss(solution)
    for _ in range(_MAX_STEPS):
        margins = signs * (design @ solution)
        # The logistic function by tanh, which cannot overflow.
        wrong = 0.5 * (1.0 - np.tanh(0.5 * margins))
        gradient = -design.T @ (trial_weights * signs * wrong) + penalty * solution
        free = ~((solution <= bounds + _AT_BOUND) & (gradient > 0.0))
        curvature = trial_weights * wrong * (1.0 - wrong)
        part = design[:, free]
        # The intercept has no penalty, so a separable set leaves it almost flat: a touch keeps the system
        # regular.
        hessian = (part * curvature[:, None]).T @ part + np.diag(penalty[free] + 1e-12)
        step = np.zeros_like(solution)
        step[free] = np.linalg.solve(hessian, gradient[free])
        if float(gradient @ step) < _CLOSE_ENOUGH:
            return _split(np.maximum(solution - step, bounds))
        length = 1.0
        candidate = np.maximum(solution - step, bounds)
        while (value := loss(candidate)) > current - 1e-4 * float(gradient @ (solution - candidate)):
            length *= 0.5
            if length < 1e-12:
                return _split(solution)  # no decrease can be represented
            candidate = np.maximum(solution - length * step, bounds)
        solution, current = candidate, value
    return _split(solution)


def _split(solution: FloatArray) -> tuple[FloatArray, float]:
    return solution[:-1], float(solution[-1])
