"""Slow, independent forms of what the package computes fast."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp


def flow_by_ode(x, rho, gamma, t, atom=0.0, rtol=1e-11):
    """Loss and K of the flow as theory states it, da/dt = K x (1 − a) + (γc/K) a, dK/dt = 2γc, by a general stiff solver."""
    x, rho = np.asarray(x, float), np.asarray(rho, float)

    def rate(_, state):
        a, K = state[:-1], state[-1]
        c = rho @ (a * (1 - a))
        return np.append(K * x * (1 - a) + gamma * c / K * a, 2 * gamma * c)

    start = np.append(np.zeros(x.size), 1.0)
    solution = solve_ivp(rate, (0, max(t)), start, method="Radau", t_eval=t, rtol=rtol, atol=1e-13)
    a, K = solution.y[:-1], solution.y[-1]
    return atom + rho @ (1 - a) ** 2, K


def descent(G, b, c, N, eta, gamma, steps):
    """Loss after each of `steps` full-gradient steps of w and U, the collapse of theory section 4, all in N × N."""
    w, U = np.zeros(N), np.eye(N)
    losses = []
    for _ in range(steps + 1):
        m = U.T @ w
        losses.append(c - 2 * m @ b / N + m @ G @ m / N**2)
        u = b - G @ m / N
        w, U = w + eta * U @ u, U + eta * gamma / N * np.outer(w, u)
    return np.array(losses)
