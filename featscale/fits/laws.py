r"""Scaling laws as rows of a table, and the one function that evaluates any row with exact derivatives.

.. math:: L(x) = E + \Bigl(\sum_j \bigl(c_j \textstyle\prod_v x_v^{-\theta_{jv}}\bigr)^q\Bigr)^{1/q}

q = 1 is a sum, q = ∞ a maximum, q a parameter a q-norm. In the logarithms of c, E and q everything is smooth and without constraint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from featscale.errors import BadInput, require

Array = NDArray[np.float64]

EXPONENT = (0.0, 10.0)
NORM = (0.25, 64.0)
# A coefficient whose term is e^-60 of the loss is zero.
LOG_COEFFICIENT = (-60.0, 60.0)


@dataclass(frozen=True)
class Term:
    """coefficient · Π v^-power over the variables v; a power is a parameter's name or a number."""

    coefficient: str
    powers: Mapping[str, str | float]


@dataclass(frozen=True)
class Law:
    """One row: name, terms, the additive floor's name if there is one, and how the terms are put together.

    q: 1 for the sum, math.inf for the maximum, or the name of a parameter for a q-norm. bounds: of exponents and q that differ from the
    defaults, [0, 10] and [1/4, 64]. Coefficients and floor are >= 0.
    """

    name: str
    terms: tuple[Term, ...]
    floor: str | None = None
    q: float | str = 1.0
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Names of the parameters that enter linearly, the floor first."""
        return (*((self.floor,) if self.floor else ()), *(term.coefficient for term in self.terms))

    @property
    def exponents(self) -> tuple[str, ...]:
        """Names of the exponents, in the order of the terms."""
        names = [power for term in self.terms for power in term.powers.values() if isinstance(power, str)]
        return tuple(dict.fromkeys(names))

    @property
    def parameters(self) -> tuple[str, ...]:
        """All names, in the order of the parameter vector: coefficients, exponents, q."""
        return (*self.coefficients, *self.exponents, *((self.q,) if isinstance(self.q, str) else ()))

    @property
    def variables(self) -> tuple[str, ...]:
        """The columns the law reads."""
        return tuple(dict.fromkeys(variable for term in self.terms for variable in term.powers))

    @property
    def formula(self) -> str:
        """The law as text."""
        terms = [" ".join([term.coefficient, *map(_power, term.powers.items())]) for term in self.terms]
        if self.q == 1:
            body = " + ".join(terms)
        elif self.q == math.inf:
            body = f"max({', '.join(terms)})"
        else:
            body = "(" + " + ".join(f"({term})^{self.q}" for term in terms) + f")^(1/{self.q})"
        return f"{self.floor} + {body}" if self.floor else body

    def without(self, coefficient: str) -> Law:
        """The law with one coefficient, and what belongs to its term alone, left out."""
        if coefficient == self.floor:
            return replace(self, floor=None)
        return replace(self, terms=tuple(term for term in self.terms if term.coefficient != coefficient))

    def summed(self) -> Law:
        """The sum of the same terms."""
        return replace(self, q=1.0)

    def limits(self) -> tuple[Array, Array]:
        """Bounds of the parameter vector, each of shape (P,)."""
        lo, hi = np.array([self.bounds.get(name, self._default(name)) for name in self.parameters]).T
        if isinstance(self.q, str):
            lo[-1], hi[-1] = np.log([lo[-1], hi[-1]])
        return lo, hi

    def _default(self, name: str) -> tuple[float, float]:
        if name in self.coefficients:
            return LOG_COEFFICIENT
        return NORM if name == self.q else EXPONENT


def _power(item: tuple[str, str | float]) -> str:
    variable, power = item
    if isinstance(power, str):
        return f"{variable}^-{power}"
    return variable if power == -1 else f"{variable}^{-power:g}"


_N_D = (Term("A", {"N": "alpha"}), Term("B", {"D": "beta"}))
_T_N = (Term("A", {"t": "chi"}), Term("B", {"N": "r"}))
_TRANSIENT = Term("F", {"N": 1.0, "t": "transient"})
_SGD = Term("G", {"noise": -1.0, "t": "sgd"})

LAWS: Mapping[str, Law] = {
    law.name: law
    for law in (
        Law("chinchilla", _N_D, floor="E"),
        Law("chinchilla_max", _N_D, floor="E", q=math.inf),
        Law("chinchilla_qnorm", _N_D, floor="E", q="q"),
        Law("sum", _T_N),
        Law("sum_floor", _T_N, floor="E"),
        Law("max", _T_N, q=math.inf),
        Law("qnorm", _T_N, q="q"),
        Law("transient", (*_T_N, _TRANSIENT)),
        Law("bottleneck", (*_T_N, _TRANSIENT, _SGD)),
    )
}


def law_named(name: str) -> Law:
    """The row of LAWS; BadInput lists the names there are."""
    if name not in LAWS:
        raise BadInput("law", name, f"one of {', '.join(LAWS)}")
    return LAWS[name]


@dataclass(frozen=True)
class Design:
    """A law on n rows: log term_j = offset_j + features_j · p, with logarithms of the variables about their means.

    offset, shape (n, m); features, shape (n, m, P); outer, shape (n m, P²), the products of features; m terms, the floor's apart.
    centre, variable → mean of its logarithm. Centred coefficients are those of the law at the geometric mean of the rows.
    """

    law: Law
    offset: Array
    features: Array
    outer: Array
    centre: Mapping[str, float]

    @property
    def n(self) -> int:
        return int(self.offset.shape[0])


@dataclass(frozen=True)
class Values:
    """Log loss and derivatives at K parameter vectors.

    f, shape (K, n). J, shape (K, n, P). shares, shape (K, n, m), of the terms in their norm. above, shape (K, n), what of the loss is not floor.
    """

    f: Array
    J: Array
    shares: Array
    above: Array
    u: Array


def design(law: Law, x: Mapping[str, Array], centre: Mapping[str, float] | None = None) -> Design:
    """Put `law` on rows of the variables `x`, each of shape (n,) and > 0."""
    logs = {name: np.log(x[name]) for name in law.variables}
    middle = dict(centre) if centre is not None else {name: float(values.mean()) for name, values in logs.items()}
    n, m, P = next(iter(logs.values())).size, len(law.terms), len(law.parameters)
    offset, features = np.zeros((n, m)), np.zeros((n, m, P))
    for j, term in enumerate(law.terms):
        features[:, j, law.parameters.index(term.coefficient)] = 1.0
        for name, power in term.powers.items():
            z = logs[name] - middle[name]
            if isinstance(power, str):
                features[:, j, law.parameters.index(power)] -= z
            else:
                offset[:, j] -= power * z
    outer = np.einsum("nmp,nmq->nmpq", features, features).reshape(n * m, P * P)
    return Design(law, offset, features, outer, middle)


def log_loss(on: Design, p: Array) -> Array:
    """log L at K parameter vectors, shape (K, P) → (K, n), without derivatives."""
    v, _ = _norm(on, p, _terms(on, p))
    return np.logaddexp(p[:, :1], v) if on.law.floor else v


def evaluate(on: Design, p: Array) -> Values:
    r"""log L and its Jacobian at K parameter vectors p, shape (K, P).

    With v the log of the norm, s_j = (c_j φ_j)^q / Σ(c φ)^q and σ = e^{v − f}:
    .. math:: \partial v = \sum_j s_j \partial u_j,\quad \partial v/\partial\log q = \sum_j s_j u_j - v,\quad
              \partial f = (1-\sigma)\,\partial\log E + \sigma\,\partial v
    Source: derived; tests/fits/test_laws.py compares with differences.
    Cost: O(K n m P).
    """
    u = _terms(on, p)
    v, s = _norm(on, p, u)
    J = np.einsum("knm,nmp->knp", s, on.features)
    if isinstance(on.law.q, str):
        J[..., -1] = (s * u).sum(axis=-1) - v
    if not on.law.floor:
        return Values(v, J, s, np.ones_like(v), u)
    f = np.logaddexp(p[:, :1], v)
    above = np.exp(v - f)
    J *= above[..., None]
    J[..., 0] += 1 - above
    return Values(f, J, s, above, u)


def curvature(on: Design, p: Array, at: Values, weight: Array) -> Array:
    r"""Σ_n weight_n ∂²f_n, shape (K, P, P), from the values `at` p; weight, shape (K, n).

    .. math:: \partial^2 f = (1-\sigma)\,\partial u_E^2 + \sigma(\partial v\,\partial v^T + \partial^2 v) - \partial f\,\partial f^T,\quad
              \partial^2 v = q\Bigl(\sum_j s_j\,\partial u_j\partial u_j^T - \partial_x v\,\partial_x v^T\Bigr) + \text{terms in } \log q
    """
    K, P = p.shape
    inner = weight * at.above
    H = -_gram(at.J, weight)
    g = at.J
    if on.law.floor:
        g = (at.J - (1 - at.above)[..., None] * (np.arange(P) == 0)) / np.maximum(at.above, 1e-300)[..., None]
        H[:, 0, 0] += (weight * (1 - at.above)).sum(axis=1)
    H += _gram(g, inner)
    if on.law.q == math.inf:
        return H
    q = np.exp(p[:, -1:]) if isinstance(on.law.q, str) else np.full((K, 1), float(on.law.q))
    gx = g.copy()
    if isinstance(on.law.q, str):
        gx[..., -1] = 0.0
    scaled = (q * inner)[..., None] * at.shares
    H += (scaled.reshape(K, -1) @ on.outer).reshape(K, P, P) - _gram(gx, q * inner)
    if isinstance(on.law.q, str):
        apart = at.u - (at.shares * at.u).sum(axis=-1, keepdims=True)
        cross = np.einsum("knm,nmp->kp", scaled * apart, on.features)
        H[:, -1, :] += cross
        H[:, :, -1] += cross
        H[:, -1, -1] += (scaled * apart**2).sum(axis=(1, 2)) - (inner * g[..., -1]).sum(axis=1)
    return H


def _gram(J: Array, weight: Array) -> Array:
    return np.swapaxes(J, 1, 2) @ (weight[..., None] * J)


def _terms(on: Design, p: Array) -> Array:
    n, m, P = on.features.shape
    return on.offset + (p @ on.features.reshape(n * m, P).T).reshape(len(p), n, m)


def _norm(on: Design, p: Array, u: Array) -> tuple[Array, Array]:
    """log of the norm of the terms, shape (K, n), and their shares, shape (K, n, m)."""
    top = u.max(axis=-1, keepdims=True)
    if on.law.q == math.inf:
        return top[..., 0], (np.arange(u.shape[-1]) == u.argmax(axis=-1)[..., None]).astype(np.float64)
    q = np.exp(p[:, -1])[:, None, None] if isinstance(on.law.q, str) else float(on.law.q)
    e = np.exp(q * (u - top))
    total = e.sum(axis=-1, keepdims=True)
    return (top + np.log(total) / q)[..., 0], e / total


def centred(law: Law, centre: Mapping[str, float], p: Array) -> Array:
    """Parameter vectors in units of the rows → with coefficients at the rows' centre; over the last axis."""
    return _shifted(law, centre, p, -1.0)


def uncentred(law: Law, centre: Mapping[str, float], p: Array) -> Array:
    """The inverse of :func:`centred`."""
    return _shifted(law, centre, p, 1.0)


def _shifted(law: Law, centre: Mapping[str, float], p: Array, sign: float) -> Array:
    moved = p.copy()
    for term in law.terms:
        i = law.parameters.index(term.coefficient)
        for name, power in term.powers.items():
            value = p[..., law.parameters.index(power)] if isinstance(power, str) else power
            moved[..., i] = moved[..., i] + sign * value * centre[name]
    return moved


def vector(law: Law, values: Mapping[str, float]) -> Array:
    """The parameter vector, shape (P,), of named values: logarithms of coefficients and of q, exponents as they are."""
    for name in law.parameters:
        require(name in values, name, None, f"a value for every parameter of {law.name}: {', '.join(law.parameters)}")
    with np.errstate(divide="ignore"):
        return np.array([np.log(values[k]) if logarithmic(law, k) else values[k] for k in law.parameters], np.float64)


def named(law: Law, p: Array) -> dict[str, float]:
    """The values by name, of one parameter vector; the inverse of :func:`vector`."""
    with np.errstate(over="ignore"):
        return {k: float(np.exp(v) if logarithmic(law, k) else v) for k, v in zip(law.parameters, p, strict=True)}


def logarithmic(law: Law, name: str) -> bool:
    """Whether the parameter vector holds the logarithm of this parameter."""
    return name in law.coefficients or name == law.q
