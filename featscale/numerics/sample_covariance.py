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

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Array = NDArray[np.float64]

# A gap between eigenvalues leaves a ripple e^{−2φ/N} on the density, φ the sum above at v = 0 in the middle of the gap.
SMOOTH = 8.0
NODES_BUMP = 8
NODES_SMOOTH = 10
# Panels toward the lower edge shrink by this factor in √(u − edge), this many times: with M near N the density has scales down to 1/M there.
GRADING, GRADES = 4.0, 14
CHUNK = 1 << 16


@dataclass(frozen=True)
class Modes:
    """Population modes: lam, distinct eigenvalues > 0, largest first; count, how many modes share each; rho, their power. All of shape (n,)."""

    lam: Array
    count: Array
    rho: Array

    @property
    def weight(self) -> Array:
        """count λ², the weights of the first equation."""
        return self.count * self.lam**2


class Curve(NamedTuple):
    """Quadrature nodes on the support: u, v, position x and mass of the measure, each of shape (n,)."""

    u: Array
    v: Array
    x: Array
    mass: Array


def bottleneck_kappa(modes: Modes, N: float) -> float:
    """The root κ₀ of Σ λ_k/(λ_k + κ₀) = N; 0 where there are no more than N modes."""
    missing = modes.count.sum() - N
    if missing <= 0:
        return 0.0

    def excess(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        return float(modes.count @ (kappa / (modes.lam + kappa)) - missing)

    # Σ λ/(λ + κ) lies between count.sum() λ_min/(λ_min + κ) and trace/κ.
    low, high = modes.lam[-1] * missing / modes.count.sum() / 2, 2 * (modes.count @ modes.lam) / N
    return float(np.exp(brentq(excess, np.log(low), np.log(high), xtol=1e-14, rtol=1e-14)))


def transform(modes: Modes, N: float, kappa: Array) -> tuple[Array, Array]:
    """z and ∫ρ_N(dx)/(x + z) at real kappa > κ₀, each of the shape of kappa (n,)."""
    share = 1 - (modes.count * modes.lam / (modes.lam + kappa[:, None])).sum(1) / N
    return kappa * share, (modes.rho / (modes.lam + kappa[:, None])).sum(1) / share


def support_curve(modes: Modes, N: float) -> Curve:
    """Nodes along the whole support, x increasing; their masses sum to the power less the atom's.

    Cost: O(√N) nodes times O(modes), about 5 Newton steps.
    """
    lower, upper = _outer_edges(modes, N)
    u, du = _panels(modes, N, lower, upper)
    order = np.argsort(u, kind="stable")
    u, du = u[order], du[order]
    x, v, mass = np.empty((3, u.size))
    rows = max(1, CHUNK // modes.lam.size)
    for start in range(0, u.size, rows):
        part = slice(start, start + rows)
        v[part], x[part], mass[part] = _density(modes, N, u[part])
    return Curve(u, v, x, mass * du)


def _density(modes: Modes, N: float, u: Array) -> tuple[Array, Array, Array]:
    """v, x and the mass per du at each u, shape (n,); zero mass outside the support."""
    w, difference = modes.weight, modes.lam - u[:, None]
    distance = difference**2
    y = _root(w, distance, N, _start(modes, N, u, distance))
    inverse = 1 / (distance + y[:, None])
    v, modulus = np.sqrt(y), u**2 + y
    x = modulus / N * (inverse @ (modes.count * modes.lam))
    power = inverse @ (modes.rho * modes.lam)
    np.multiply(inverse, inverse, out=inverse)
    # dx = |x'|²/Re x' du along the curve, x'(p) = 1 − Σ λ²/(λ − p)²/N; on the curve Re x' = 2 v² Σ λ²/|λ − p|⁴/N, without cancellation.
    real = 2 * y / N * (inverse @ w)
    imaginary = 2 * v / N * (np.multiply(difference, inverse, out=difference) @ w)
    inside = y > 0
    real[~inside] = 1.0
    return v, x, np.where(inside, v / (np.pi * x) * power * (real + imaginary**2 / real), 0.0)


def _start(modes: Modes, N: float, u: Array, distance: Array) -> Array:
    """A guess of v² at each u, shape (n,): from the nearest eigenvalue alone, or where terms blend from their sum's limit v = π λ²/(N gap)."""
    k = np.clip(np.searchsorted(-modes.lam, -u), 1, modes.lam.size - 1) if modes.lam.size > 1 else np.zeros(u.size, int)
    gap = np.abs(modes.lam[k - 1] - modes.lam[k]) if modes.lam.size > 1 else np.full(u.size, np.inf)
    blended = np.pi * modes.weight[k] / (N * gap)
    blended = np.where((blended > gap / 2) & (u > modes.lam[-1]), blended, 0.0)
    return np.maximum(0.8 * blended**2, (modes.weight / N - distance).max(axis=1))


def _root(w: Array, distance: Array, N: float, y: Array) -> Array:
    """The y = v² >= 0 with Σ w/(distance + y) = N for each row of distance, shape (n, modes), from a guess y > 0; 0 where there is none.

    The reciprocal of the sum is concave in y: Newton's method for it rises to the root from below, and from above falls below it at once.
    """
    floor = np.maximum((w / N - distance).max(axis=1), 1e-300)
    y, inverse = np.maximum(y, floor), np.empty_like(distance)
    for _ in range(100):
        np.reciprocal(np.add(distance, y[:, None], out=inverse), out=inverse)
        total = inverse @ w
        slope = np.multiply(inverse, inverse, out=inverse) @ w
        new = np.maximum(y + total / slope * (total / N - 1), floor)
        done = np.all(np.abs(new - y) <= 1e-8 * new)
        y = new
        if done:
            break
    return np.where(y > 1e-290, y, 0.0)


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
        edges.append(float(modes.lam[end] + side * q))
    return edges[0], edges[1]


def _panels(modes: Modes, N: float, lower: float, upper: float) -> tuple[Array, Array]:
    """Quadrature nodes u and weights du on [lower, upper]: fine where eigenvalues stand apart, coarse where the density is smooth."""
    lam, gap = modes.lam, -np.diff(modes.lam)
    roughness = SMOOTH * N * gap**2 / (8 * lam[1:] * lam[:-1] * np.minimum(modes.count[1:], modes.count[:-1]))
    rough = np.flatnonzero(roughness > 1)
    left, right = _inner_edges(modes, N, rough)
    parts = [_bump(np.array([lam[0]]), np.array([upper]))]
    parts += [_bump(lam[rough], left), _bump(lam[rough + 1], right)]
    # Panels of a smooth stretch: no longer than a few v, v = gap/(π roughness) here, nor than half of u − lower.
    log_u = np.log(lam - lower)
    for start, stop in _stretches(rough, lam.size):
        cost = np.cumsum(roughness[start:stop] / 6 - np.diff(log_u[start : stop + 1]) / 0.7)
        cuts = start + np.searchsorted(cost, np.arange(1, int(cost[-1]) + 1)) + 1
        points = np.unique(np.concatenate([[start], np.minimum(cuts, stop), [stop]]))
        s, ds = _gauss(log_u[points[1:]], log_u[points[:-1]], NODES_SMOOTH)
        parts.append((lower + np.exp(s), ds * np.exp(s)))
    s = np.concatenate([[0.0], GRADING ** -np.arange(GRADES, -1.0, -1.0)])
    s, ds = _gauss(s[:-1], s[1:], NODES_SMOOTH)
    parts.append((lower + (lam[-1] - lower) * s**2, (lam[-1] - lower) * 2 * s * ds))
    u, du = (np.concatenate(column) for column in zip(*parts, strict=True))
    return u, du


def _stretches(rough: NDArray[np.intp], size: int) -> list[tuple[int, int]]:
    """Index ranges (start, stop) of eigenvalues between which no gap is rough."""
    ends = np.concatenate([[-1], rough, [size - 1]])
    return [(int(a) + 1, int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True) if b > a + 1]


def _bump(centre: Array, edge: Array) -> tuple[Array, Array]:
    """Nodes between an eigenvalue and where its bump ends; in u = centre + (edge − centre) sin θ a semicircle is smooth."""
    theta, weight = _gauss(np.zeros(1), np.full(1, np.pi / 2), NODES_BUMP)
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
    reach = np.sqrt(modes.weight / N)
    left, touch_left = _rise(modes, N, high, -np.ones(rough.size), reach[rough], high - low)
    right, touch_right = _rise(modes, N, low, np.ones(rough.size), reach[rough + 1], high - low)
    touch = touch_left | touch_right | (left < right)
    middle = np.clip((left + right) / 2, low + 0.1 * (high - low), high - 0.1 * (high - low))
    return np.where(touch, middle, left), np.where(touch, middle, right)


def _rise(modes: Modes, N: float, origin: Array, side: Array, q: Array, gap: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Newton's method for the distance q of an edge from the eigenvalue `origin`; and which gaps have no edge."""
    q, touch = q.copy(), q >= gap
    active = np.flatnonzero(~touch)
    for _ in range(60):
        if active.size == 0:
            break
        new = np.empty(active.size)
        rows = max(1, CHUNK // modes.lam.size)
        for start in range(0, active.size, rows):
            part = active[start : start + rows]
            signed = (modes.lam - (origin + side * q)[part][:, None]) * side[part][:, None]
            inverse = 1 / signed
            square = inverse * inverse
            phi, slope = square @ modes.weight, 2 * ((square * inverse) @ modes.weight)
            # d/dq of φ is `slope` here; Newton on φ^{−1/2} − N^{−1/2}.
            with np.errstate(divide="ignore"):
                new[start : start + rows] = q[part] + np.where(
                    slope < 0, -2 * phi / slope * (np.sqrt(phi / N) - 1), np.inf
                )
        bad = ~(new < gap[active])
        touch[active[bad]] = True
        done = bad | (np.abs(new - q[active]) <= 1e-13 * q[active])
        q[active[~bad]] = new[~bad]
        active = active[~done]
    return origin + side * np.minimum(q, gap / 2 * np.where(touch, 1, 2)), touch
