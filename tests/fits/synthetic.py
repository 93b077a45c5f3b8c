"""Loss curves of many seeds as a trajectory makes them: noise that is correlated along t and may grow with it."""

import numpy as np


def tidy(t, curves):
    """Columns t, loss, seed of the curves, shape (S, n)."""
    S, n = curves.shape
    return np.tile(t, S), curves.ravel(), np.repeat(np.arange(S), n)


def correlated(rng, t, shape, sigma=0.05, decades=0.5, growth=1.0, offset=0.0):
    """Relative noise, shape (*shape, n), correlated over `decades`; its deviation grows by `growth` from first to last t; `offset`, of whole seeds."""
    x = np.log10(t)
    root = np.linalg.cholesky(np.exp(-np.abs(x[:, None] - x) / decades) + 1e-12 * np.eye(x.size))
    scale = sigma * growth ** ((x - x[0]) / (x[-1] - x[0]))
    return np.exp(scale * (rng.standard_normal((*shape, x.size)) @ root.T) + offset * rng.standard_normal((*shape, 1)))


def noisy(rng, t, S, chi=0.5, sigma=0.05, E=0.0):
    """S power laws above E whose relative noise is correlated over half a decade."""
    return (E + 2 * t**-chi) * correlated(rng, t, (S,), sigma)
