"""`featscale theory`: what the solvable model predicts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from featscale.cli.output import Json, emit, numbers

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
        int | None,
        typer.Option(help="Put the modes into at most this many Gauss nodes; without it they are summed exactly."),
    ] = None,
    width: Annotated[int | None, typer.Option(help="Width N of the --draws.")] = None,
    draws: Annotated[
        int | None, typer.Option(help="Average over this many draws of the initial features at width N.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first draw.")] = 0,
    as_json: Json = False,
) -> None:
    """Loss and kernel growth K of gradient flow, at infinite width or averaged over draws of width N.

    Example: featscale theory flow --alpha 1.5 --beta 0.5 --gamma 1 --modes 1000000000 --bins 2000 --times 1,10,100,1e4
    """
    import numpy as np

    from featscale.errors import require
    from featscale.spectra import PowerLaw
    from featscale.theory.flow import gradient_flow

    t = numbers(times, "times", "comma-separated flow times >= 0")
    task = PowerLaw(alpha, beta, modes)
    require((width is None) == (draws is None), "draws", draws, "given together with width, or neither")
    if width is None or draws is None:
        result = gradient_flow(task.measure(bins), gamma, t)
        emit(
            {"t": t, "loss": result.loss, "K": result.K, "status": result.status, "residual": result.residual}, as_json
        )
        return
    require(draws >= 1, "draws", draws, "an integer >= 1")
    require(1 <= width <= modes, "width", width, f"an integer from 1 to modes = {modes}")
    require(bins is None, "bins", bins, "only without --draws")
    from featscale.simulate.problem import draw

    flows = [gradient_flow(draw(task, width, seed + i).measure(), gamma, t) for i in range(draws)]
    loss, K = np.array([f.loss for f in flows]), np.array([f.K for f in flows])
    sem = loss.std(axis=0, ddof=1) / np.sqrt(draws) if draws > 1 else np.full(t.size, np.nan)
    status = "; ".join(sorted({f.status for f in flows}))
    residual = max(f.residual for f in flows)
    emit(
        {"t": t, "loss": loss.mean(0), "loss_sem": sem, "K": K.mean(0), "status": status, "residual": residual}, as_json
    )
