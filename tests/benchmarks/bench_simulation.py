"""Steps a second of the collapsed simulation beside a plain `jax.lax.scan` of the N × M update, in the same run.

    python tests/benchmarks/bench_simulation.py [--full]     (pip install -e '.[bench]')

Prints, for each size, microseconds a step of both (median of repeats taken in turn), their ratio, and the error of the collapsed loss against the
definition at B = inf. Asserts nothing: the machine decides the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import torch

from featscale.simulate.collapsed import Collapsed
from featscale.simulate.curves import simulate
from featscale.simulate.problem import Problem
from featscale.spectra import PowerLaw

ALPHA, BETA, GAMMA, ETA = 1.5, 0.5, 1.0, 0.1


def jax_run(N: int, M: int, B: int, T: int):
    """The N × M update as a user of JAX would write it; returns a function that makes T steps."""
    k = jnp.arange(1, M + 1, dtype=jnp.float32)
    lambdas, w_star = k**-ALPHA, k ** (-(ALPHA * (BETA - 1) + 1) / 2)
    A0 = jax.random.normal(jax.random.PRNGKey(0), (N, M))

    def step(state, key):
        w, A = state
        psi = jax.random.normal(key, (B, M)) * jnp.sqrt(lambdas)
        g = psi.T @ (psi @ (w_star - A.T @ w / N)) / B
        return (w + ETA * A @ g, A + ETA * GAMMA * jnp.outer(w, (A0 @ g) @ A0 / N)), None

    run = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys)[0])
    keys = jax.random.split(jax.random.PRNGKey(1), T)
    return lambda: jax.block_until_ready(run((jnp.zeros(N), A0), keys))


def seconds(function) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turn(repeats: int, *functions) -> list[float]:
    """Median seconds of each function, called A B A B …, after a first call of each."""
    for function in functions:
        function()
    return [
        statistics.median(times)
        for times in zip(*[[seconds(f) for f in functions] for _ in range(repeats)], strict=True)
    ]


def against_jax(N: int, M: int, B: int, T_jax: int, T: int = 2000) -> None:
    """One line: a single run of the collapsed form beside JAX."""
    simulation = Collapsed([Problem(PowerLaw(ALPHA, BETA, M), N, ETA, GAMMA, B)], [0])
    ours, theirs = in_turn(5, lambda: simulation.advance(0, T), jax_run(N, M, B, T_jax))
    ours, theirs = 1e6 * ours / T, 1e6 * theirs / T_jax
    print(
        f"N={N:<4} M={M:<6} B={B}: collapsed {ours:8.1f} us/step   jax {theirs:10.1f} us/step   ratio {theirs / ours:7.1f}"
    )


def replicas(N: int, M: int, B: int, E: int, T: int = 500) -> None:
    """One line: E seeds stepped together beside E runs in turn."""
    problem = Problem(PowerLaw(ALPHA, BETA, M), N, ETA, GAMMA, B)
    together = Collapsed([problem] * E, range(E))
    alone = Collapsed([problem], [0])
    both, one = in_turn(5, lambda: together.advance(0, T), lambda: alone.advance(0, T))
    print(
        f"N={N:<4} E={E}: together {1e6 * both / T:8.1f} us/step   in turn {1e6 * E * one / T:10.1f} us/step   ratio {E * one / both:7.1f}"
    )


def error(N: int, M: int) -> None:
    """One line: relative error of the collapsed loss against the N × M definition, and of float32."""
    problem = Problem(PowerLaw(ALPHA, BETA, M), N, ETA, GAMMA)
    exact, fast = simulate(problem, 200, [0], method="naive").loss, simulate(problem, 200, [0]).loss
    print(f"N={N:<4} M={M:<6} B=inf: relative error of the loss after 200 steps {abs(fast / exact - 1).max():.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="also N = 512, M = 65536 (a minute more)")
    full = parser.parse_args().full
    print(
        f"torch {torch.__version__} on {torch.get_num_threads()} threads, jax {jax.__version__} on {jax.devices()[0]}"
    )
    error(128, 4096)
    against_jax(128, 4096, 32, T_jax=100)
    if full:
        against_jax(512, 65536, 32, T_jax=3)
    replicas(64, 4096, 32, E=64)
