r"""Deterministic spectral measure of Λ^½ (AᵀA/N) Λ^½ as N and the number of modes grow, A with N rows of standard normals.

The measure ρ_N of a vector with power ρ_k in mode k solves the anisotropic Marchenko–Pastur equations

.. math::
    \int \frac{\rho_N(dx)}{x + z} = \frac{1}{z} \sum_k \rho_k \frac{\kappa}{\lambda_k + \kappa}, \qquad
    z = \kappa \Big( 1 - \frac{1}{N} \sum_k \frac{\lambda_k}{\lambda_k + \kappa} \Big).

On the support, at z = −x, κ = −p is complex, p = u + iv with v > 0, and the imaginary part of the second equation leaves sums of positive terms only:

.. math::
    \sum_k \frac{\lambda_k^2}{|\lambda_k - p|^2} = N, \qquad x = \frac{|p|^2}{N} \sum_k \frac{\lambda_k}{|\lambda_k - p|^2}, \qquad
    \frac{\rho_N(dx)}{dx} = \frac{v}{\pi x} \sum_k \frac{\rho_k \lambda_k}{|\lambda_k - p|^2}

The first has one root v(u) or none, and x grows with u: so the curve is followed in u with no branch to choose, no inversion of a transform,
and every digit kept in masses however small. Where no root exists lies a gap of the support.
Derived, after the parametrisation of the support by Silverstein and Choi (1995); tests/numerics/test_sample_covariance.py compares with the closed
form for Λ = 1, with the transform on z > 0, and with random matrices.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from featscale.numerics.mode_tree import Modes, ModeTree

Array = NDArray[np.float64]

# A gap between eigenvalues leaves a ripple e^{−2φ/N} on the density, φ the sum above at v = 0 in the middle of the gap.
SMOOTH = 8.0
NODES_SMOOTH = 10
# Panels toward the lower edge shrink by this factor in √(u − edge), this many times: with M near N the density has scales down to 1/M there.
GRADING, GRADES = 4.0, 12
# Nodes of half a bump: the first ones hold the power, and where two just come apart need many.
NODES_BUMP = ((0, 8, 32), (8, 100, 12), (100, None, 6))
WIDE = 1.4
ITERATIONS = 100
CHUNK, ROWS = 1 << 16, 96


class Curve(NamedTuple):
    """Quadrature nodes on the support, x increasing, each of shape (n,).

    p = u + iv, v > 0. x, position, and dx, its weight. rho0 = Σ ρ/|λ − p|² and rho1 = Σ ρλ/|λ − p|².
    """

    p: NDArray[np.complex128]
    x: Array
    dx: Array
    rho0: Array
    rho1: Array


def bottleneck_kappa(modes: Modes, N: float) -> float:
    """The root κ₀ of Σ λ_k/(λ_k + κ₀) = N; 0 where there are no more than N modes."""
    total = modes.count.sum()
    missing = total - N
    if missing <= 0:
        return 0.0

    def excess(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        # What is reached, or what is not: whichever is the smaller number.
        if total > 2 * N:
            return float(N - modes.count @ (modes.lam / (modes.lam + kappa)))
        return float(modes.count @ (kappa / (modes.lam + kappa)) - missing)

    # At the lower end no mode lacks more than missing/(2 total), at the upper end none reaches more than N/(2 total).
    low, high = modes.lam[-1] * missing / total / 2, 2 * modes.lam[0] * total / N
    return float(np.exp(brentq(excess, np.log(low), np.log(high), xtol=1e-14, rtol=1e-14)))


def transform(modes: Modes, N: float, kappa: Array) -> tuple[Array, Array]:
    """z and ∫ρ_N(dx)/(x + z) at real kappa > κ₀, each of the shape of kappa (n,)."""
    share = 1 - (modes.count * modes.lam / (modes.lam + kappa[:, None])).sum(1) / N
    return kappa * share, (modes.rho / (modes.lam + kappa[:, None])).sum(1) / share


def support_curve(modes: Modes, N: float) -> Curve:
    """Nodes along the whole support.

    Accuracy: 1e-6 relative in integrals of smooth functions. Cost: O(√N) nodes, about 5 Newton steps each on some 10³ modes and clusters of modes.
    """
    lower, upper = _outer_edges(modes, N)
    u, du = _panels(modes, N, lower, upper)
    order = np.argsort(u, kind="stable")
    u, du = u[order], du[order]
    tree, below = ModeTree(modes), int(np.searchsorted(u, modes.lam[-1]))
    # Below all eigenvalues their exact number matters.
    parts = [_follow(modes, N, u[part]) for part in _chunks(0, below, CHUNK // modes.lam.size)]
    parts += [_follow(tree.around(u[part][0], u[part][-1]), N, u[part]) for part in _chunks(below, u.size, ROWS)]
    v, x, slope, rho0, rho1 = (np.concatenate(column) for column in zip(*parts, strict=True))
    inside = v > 0
    return Curve((u + 1j * v)[inside], x[inside], (slope * du)[inside], rho0[inside], rho1[inside])


def _chunks(start: int, stop: int, rows: int) -> list[slice]:
    return [slice(first, min(stop, first + max(1, rows))) for first in range(start, stop, max(1, rows))]


def vector_mass(curve: Curve) -> Array:
    """Masses of ρ_N, the measure of the vector with power ρ_k in mode k, shape (n,); their sum is the power less the atom's."""
    return curve.p.imag / (np.pi * curve.x) * curve.rho1 * curve.dx


def eigenvalue_count(curve: Curve, N: float) -> Array:
    """How many eigenvalues each node stands for, shape (n,); their sum is N or the number of modes, whichever is smaller."""
    return N / np.pi * curve.p.imag / np.abs(curve.p) ** 2 * curve.dx


def _follow(modes: Modes, N: float, u: Array) -> tuple[Array, Array, Array, Array, Array]:
    """v, x, dx/du and the sums of powers at each u, shape (n,); v = 0 outside the support."""
    w, difference = modes.weight, modes.lam - u[:, None]
    distance = difference**2
    y = _root(modes, N, u, distance, _start(modes, N, u, distance))
    inverse = 1 / (distance + y[:, None])
    v = np.sqrt(y)
    x = (u**2 + y) / N * (inverse @ (modes.count * modes.lam))
    rho0, rho1 = inverse @ modes.rho, inverse @ (modes.rho * modes.lam)
    np.multiply(inverse, inverse, out=inverse)
    # dx = |x'|²/Re x' du along the curve, x'(p) = 1 − Σ λ²/(λ − p)²/N; on the curve Re x' = 2 v² Σ λ²/|λ − p|⁴/N, without cancellation.
    real = np.where(y > 0, 2 * y / N * (inverse @ w), 1.0)
    imaginary = 2 * v / N * (np.multiply(difference, inverse, out=difference) @ w)
    return v, x, real + imaginary**2 / real, rho0, rho1


def _start(modes: Modes, N: float, u: Array, distance: Array) -> Array:
    """A guess of v² at each u, shape (n,): from the nearest eigenvalue alone, or where terms blend from their sum's limit v = π λ²/(N gap)."""
    alone = (modes.weight / N - distance).max(axis=1)
    if modes.lam.size == 1:
        return alone
    k = np.clip(np.searchsorted(-modes.lam, -u), 1, modes.lam.size - 1)
    gap = modes.lam[k - 1] - modes.lam[k]
    blended = np.pi * modes.weight[k] / (N * gap)
    return np.maximum(alone, np.where((blended > gap / 2) & (u > modes.lam[-1]), 0.8 * blended**2, 0.0))


def _root(modes: Modes, N: float, u: Array, distance: Array, y: Array) -> Array:
    """The y = v² >= 0 with Σ λ²/(distance + y) = N at each u, from a guess; 0 where there is none. distance = (λ − u)², shape (n, modes).

    The reciprocal of the sum is concave in y: Newton's method for it rises to the root from below, and from above falls below it at once.
    """
    w, inverse = modes.weight, np.empty_like(distance)
    # A little below the bound, which is a difference and has lost digits near an edge.
    floor = np.maximum((w / N * (1 - 1e-14) - distance).max(axis=1), 1e-300)
    near = _near_zero(modes, N, u)
    y = np.maximum(y, floor)
    for _ in range(ITERATIONS):
        np.reciprocal(np.add(distance, y[:, None], out=inverse), out=inverse)
        total = inverse @ w
        excess = total - N
        if near.any():
            excess = np.where(near, _excess_near_zero(modes, N, u, y, inverse), excess)
        slope = np.multiply(inverse, inverse, out=inverse) @ w
        new = np.maximum(y + total / slope * (excess / N), floor)
        done = np.all(np.abs(new - y) <= 1e-8 * new)
        y = new
        if done:
            break
    return np.where(y > 1e-290, y, 0.0)


def _near_zero(modes: Modes, N: float, u: Array) -> NDArray[np.bool_]:
    """Where Σ λ²/|λ − p|² − N is a small difference of large numbers: below all eigenvalues, if their number is near N."""
    return (u < modes.lam[-1]) & (modes.count.sum() < 2 * N)


def _excess_near_zero(modes: Modes, N: float, u: Array, y: Array, inverse: Array) -> Array:
    """Σ λ²/|λ − p|² − N, written so that it keeps its digits as p → 0: λ² = |λ − p|² + 2λu − |p|²."""
    return modes.count.sum() - N + 2 * u * (inverse @ (modes.count * modes.lam)) - (u**2 + y) * (inverse @ modes.count)


def _outer_edges(modes: Modes, N: float) -> tuple[float, float]:
    """The u at which the support begins and ends: Σ λ²/(λ − u)² = N below the smallest and above the largest eigenvalue."""
    edges = []
    for end, side in ((-1, -1.0), (0, 1.0)):
        distance = np.abs(modes.lam - modes.lam[end])
        low = np.sqrt(modes.weight[end] / N) / 2
        high = 2 * np.sqrt(modes.weight.sum() / N)

        def excess(log_q: float, distance: Array = distance) -> float:
            return float(np.log((modes.weight / (distance + np.exp(log_q)) ** 2).sum() / N))

        q = np.exp(brentq(excess, np.log(low), np.log(high), xtol=1e-14, rtol=1e-14))
        edges.append(modes.lam[end] + side * q)
    lower = np.array(edges[:1])
    if _near_zero(modes, N, lower):
        for _ in range(5):
            inverse = 1 / (modes.lam - lower) ** 2
            slope = 2 * (inverse / (modes.lam - lower) @ modes.weight)
            lower = lower - _excess_near_zero(modes, N, lower, np.zeros(1), inverse[None]) / slope
    return float(lower[0]), float(edges[1])


def _panels(modes: Modes, N: float, lower: float, upper: float) -> tuple[Array, Array]:
    """Quadrature nodes u and weights du on [lower, upper]: fine where eigenvalues stand apart, coarse where the density is smooth."""
    lam, gap, log_u = modes.lam, -np.diff(modes.lam), np.log(modes.lam - lower)
    roughness = SMOOTH * N * gap**2 / (8 * lam[1:] * lam[:-1] * np.minimum(modes.count[1:], modes.count[:-1]))
    rough = np.flatnonzero(roughness > 1)
    left, right = _inner_edges(modes, N, rough)
    # Bumps that touch across a wide gap vary on the scale of u − lower.
    wide = (left == right) & (log_u[rough] - log_u[rough + 1] > WIDE)
    parts = [_bump(lam[:1], np.array([upper]), NODES_BUMP[0][-1]), _toward(lower, lam[-1])]
    for start, stop, nodes in NODES_BUMP:
        part = slice(start, stop)
        k, narrow = rough[part], ~wide[part]
        parts.append(_bump(lam[k[narrow]], left[part][narrow], nodes))
        parts.append(_bump(lam[k[narrow] + 1], right[part][narrow], nodes))
    for k in rough[wide]:
        ends = np.linspace(log_u[k + 1], log_u[k], int(np.ceil(2 * (log_u[k] - log_u[k + 1]))) + 1)
        parts.append(_geometric(lower, ends[:-1], ends[1:]))
    # Panels of a smooth stretch: no longer than a few v, v = gap/(π roughness) here, nor than half of u − lower.
    for first, last in _stretches(rough, lam.size):
        cost = np.cumsum(roughness[first:last] / 6 - np.diff(log_u[first : last + 1]) / 0.7)
        cuts = first + np.searchsorted(cost, np.arange(1, int(cost[-1]) + 1)) + 1
        points = np.unique(np.concatenate([[first], np.minimum(cuts, last), [last]]))
        parts.append(_geometric(lower, log_u[points[1:]], log_u[points[:-1]]))
    u, du = (np.concatenate(column) for column in zip(*parts, strict=True))
    return u, du


def _geometric(lower: float, low: Array, high: Array) -> tuple[Array, Array]:
    """Nodes on panels of ln(u − lower)."""
    s, ds = _gauss(low, high, NODES_SMOOTH)
    return lower + np.exp(s), ds * np.exp(s)


def _toward(lower: float, smallest: float) -> tuple[Array, Array]:
    """Nodes from the lower edge to the smallest eigenvalue, smooth in s = √(u − lower).

    The density has a scale of its own at s ~ |lower|/√smallest: nothing where modes abound, everything where there are about N.
    """
    grades = np.clip(np.ceil(np.log(10 * smallest / max(abs(lower), 1e-300)) / np.log(GRADING)), 1, GRADES)
    s = np.concatenate([[0.0], GRADING ** -np.arange(grades, -1.0, -1.0)])
    s, ds = _gauss(s[:-1], s[1:], NODES_SMOOTH)
    return lower + (smallest - lower) * s**2, (smallest - lower) * 2 * s * ds


def _stretches(rough: NDArray[np.intp], size: int) -> list[tuple[int, int]]:
    """Index ranges (start, stop) of eigenvalues between which no gap is rough."""
    ends = np.concatenate([[-1], rough, [size - 1]])
    return [(int(a) + 1, int(b)) for a, b in pairwise(ends) if b > a + 1]


def _bump(centre: Array, edge: Array, n: int) -> tuple[Array, Array]:
    """Nodes between an eigenvalue and where its bump ends; in u = centre + (edge − centre) sin θ a semicircle is smooth."""
    theta, weight = _gauss(np.zeros(1), np.full(1, np.pi / 2), n)
    span = (edge - centre)[:, None]
    return (centre[:, None] + span * np.sin(theta)).ravel(), (np.abs(span) * np.cos(theta) * weight).ravel()


def _gauss(low: Array, high: Array, n: int) -> tuple[Array, Array]:
    """Gauss–Legendre nodes and weights on each interval [low, high], flattened."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    half = ((high - low) / 2)[:, None]
    return ((low + high)[:, None] / 2 + half * nodes).ravel(), (half * weights).ravel()


def _inner_edges(modes: Modes, N: float, rough: NDArray[np.intp]) -> tuple[Array, Array]:
    """For the gaps below eigenvalues `rough`: where the bump above ends and where the bump below begins; one point if they touch.

    φ(u)^{−1/2}, φ = Σ λ²/(λ − u)², is concave in a gap and 0 at both ends, so Newton's method from a lower bound of either distance rises to the edge.
    """
    if rough.size == 0:
        return np.empty(0), np.empty(0)
    high, low = modes.lam[rough], modes.lam[rough + 1]
    reach, tree = np.sqrt(modes.weight / N), ModeTree(modes)
    left, touch_left = _rise(tree, N, high, -1.0, reach[rough], high - low)
    right, touch_right = _rise(tree, N, low, 1.0, reach[rough + 1], high - low)
    touch = touch_left | touch_right | (left < right)
    middle = np.clip((left + right) / 2, low + 0.1 * (high - low), high - 0.1 * (high - low))
    return np.where(touch, middle, left), np.where(touch, middle, right)


def _rise(
    tree: ModeTree, N: float, origin: Array, side: float, q: Array, gap: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Newton's method for the distance q of an edge from the eigenvalue `origin`; and which gaps have no edge."""
    q, touch = q.copy(), q >= gap
    active = np.flatnonzero(~touch)
    for _ in range(60):
        if active.size == 0:
            break
        new = np.empty(active.size)
        for rows in _chunks(0, active.size, ROWS):
            part = active[rows]
            # Both ends of each gap lie between the first origin and the last, or one gap beyond.
            seen = tree.around(float((origin - gap)[part].min()), float((origin + gap)[part].max()))
            inverse = 1 / ((seen.lam - (origin + side * q)[part][:, None]) * side)
            square = inverse * inverse
            phi, slope = square @ seen.weight, 2 * ((square * inverse) @ seen.weight)
            # Past the largest φ^{−1/2} there is no edge: the bumps touch.
            step = np.divide(2 * phi * (np.sqrt(phi / N) - 1), -slope, out=np.full(part.size, np.inf), where=slope < 0)
            new[rows] = q[part] + step
        bad = ~(new < gap[active])
        touch[active[bad]] = True
        done = bad | (np.abs(new - q[active]) <= 1e-13 * q[active])
        q[active[~bad]] = new[~bad]
        active = active[~done]
    return origin + side * np.minimum(q, gap / 2 * np.where(touch, 1, 2)), touch
