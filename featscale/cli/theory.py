"""`featscale theory`: what the solvable model predicts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featscale.cli.output import Json, emit, numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featscale.spectra import PowerLaw

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)

Alpha = Annotated[float, typer.Option(help="Capacity exponent: eigenvalues k^-alpha, alpha > 1.")]
Beta = Annotated[float, typer.Option(help="Source exponent: target power beyond mode k is k^-(alpha beta), beta > 0.")]
Gamma = Annotated[float, typer.Option(help="Richness, >= 0; 0 is the lazy limit.")]
Modes = Annotated[int, typer.Option(help="Number of modes M.")]


@app.command()
def exponents(alpha: Alpha, beta: Beta, as_json: Json = False) -> None:
    """Regime and exponents of a task: time (lazy, rich), width, data, batch noise, and the compute-optimal frontier.

    Example: featscale theory exponents --alpha 1.5 --beta 0.5
    """
    from featscale.theory.exponents import exponents as table

    emit(asdict(table(alpha, beta)), as_json)


@app.command()
def flow(
    alpha: Alpha,
    beta: Beta,
    gamma: Gamma,
    modes: Modes,
    times: Annotated[str, typer.Option(help="Flow times (learning rate times steps), comma-separated.")],
    bins: Annotated[
        int | None, typer.Option(help="At most this many Gauss nodes; without it modes are summed exactly.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Width N; without --draws the deterministic large-N prediction.")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Average over this many draws of the features at --width.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first draw.")] = 0,
    as_json: Json = False,
) -> None:
    """Loss and kernel growth K of gradient flow: at infinite width, at width N, or averaged over draws of width N.

    Example: featscale theory flow --alpha 1.5 --beta 0.5 --gamma 1 --modes 1000000000 --bins 2000 --times 1,10,100,1e4
    """
    from featscale.errors import require
    from featscale.spectra import PowerLaw
    from featscale.theory.flow import gradient_flow

    t = numbers(times, "times", "comma-separated flow times >= 0")
    task = PowerLaw(alpha, beta, modes)
    require(draws is None or width is not None, "draws", draws, "given together with width")
    if width is not None and draws is not None:
        emit(_over_draws(task, width, gamma, t, range(seed, seed + draws)), as_json)
        return
    if width is None:
        measure = task.measure(bins)
    else:
        from featscale.theory.finite_width import finite_width_measure

        measure = finite_width_measure(task, width, bins)
    result = gradient_flow(measure, gamma, t)
    emit({"t": t, "loss": result.loss, "K": result.K, "status": result.status, "residual": result.residual}, as_json)


def _over_draws(task: PowerLaw, N: int, gamma: float, t: NDArray[np.float64], seeds: range) -> dict[str, Any]:
    """Mean and standard error over draws of the initial features, each solved exactly."""
    import numpy as np

    from featscale.errors import require
    from featscale.simulate.problem import draw
    from featscale.theory.flow import gradient_flow

    S = len(seeds)
    require(S >= 1, "draws", S, "an integer >= 1")
    require(seeds.start >= 0, "seed", seeds.start, "an integer >= 0")
    require(1 <= N <= task.M, "width", N, f"an integer from 1 to modes = {task.M}")
    flows = [gradient_flow(draw(task, N, seed).measure(), gamma, t) for seed in seeds]
    loss, K = np.array([one.loss for one in flows]), np.array([one.K for one in flows])
    return {
        "t": t,
        "loss": loss.mean(axis=0),
        "loss_sem": loss.std(axis=0, ddof=1) / np.sqrt(S) if S > 1 else np.full(t.size, np.nan),
        "K": K.mean(axis=0),
        "status": "; ".join(sorted({one.status for one in flows})),
        "residual": max(one.residual for one in flows),
    }
