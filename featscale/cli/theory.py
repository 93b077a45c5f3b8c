"""`featscale theory`: what the solvable model predicts."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from featscale.cli.output import Json, emit, numbers
from featscale.errors import BadInput, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featscale.spectra import PowerLaw, SpectralMeasure

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)

Alpha = Annotated[float, typer.Option(help="Capacity exponent: eigenvalues k^-alpha, alpha > 1.")]
Beta = Annotated[float, typer.Option(help="Source exponent: target power beyond mode k is k^-(alpha beta), beta > 0.")]
Gamma = Annotated[float, typer.Option(help="Richness, >= 0; 0 is the lazy limit.")]
Modes = Annotated[int, typer.Option(help="Number of modes M.")]
Eta = Annotated[float, typer.Option(help="Learning rate, > 0.")]
Sigma = Annotated[float, typer.Option(help="Standard deviation of the label noise.")]
Plot = Annotated[
    Path | None,
    typer.Option(help="Also draw what was computed: a .png, .pdf or .svg file.", callback=lambda path: drawable(path)),
]


def drawable(path: Path | None) -> Path | None:
    """`path` if a figure can go there, known before anything is computed."""
    if path is not None:
        require(path.suffix in (".png", ".pdf", ".svg"), "plot", path, "a file named .png, .pdf or .svg")
        require(path.parent.is_dir(), "plot", path, "a file in a folder that exists")
    return path


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
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Loss and kernel growth K of gradient flow: at infinite width, at width N, or averaged over draws of width N.

    Example: featscale theory flow --alpha 1.5 --beta 0.5 --gamma 1 --modes 1000000000 --bins 2000 --times 1,10,100,1e4
    """
    from featscale.spectra import PowerLaw

    t = numbers(times, "times", "comma-separated flow times >= 0")
    task = PowerLaw(alpha, beta, modes)
    require(draws is None or width is not None, "draws", draws, "given together with width")
    if width is not None and draws is not None:
        result = _over_draws(task, width, gamma, t, range(seed, seed + draws))
    else:
        result = _of_measure(_measure(task, width, bins), gamma, t)
    emit(result, as_json)
    if plot is not None:
        from featscale.figures.theory import save_curves

        panels = {"loss": result["loss"], "K": result["K"]}
        save_curves(
            plot, t, panels, "flow time t", f"gradient flow, α={alpha:g} β={beta:g} γ={gamma:g}, N = {width or 'inf'}"
        )


def _measure(task: PowerLaw, N: int | None, bins: int | None) -> SpectralMeasure:
    from featscale.theory.finite_width import finite_width_measure

    return task.measure(bins) if N is None else finite_width_measure(task, N, bins)


def _of_measure(measure: SpectralMeasure, gamma: float, t: NDArray[np.float64]) -> dict[str, Any]:
    from featscale.theory.flow import gradient_flow

    result = gradient_flow(measure, gamma, t)
    return {"t": t, "loss": result.loss, "K": result.K, "status": result.status, "residual": result.residual}


def _over_draws(task: PowerLaw, N: int, gamma: float, t: NDArray[np.float64], seeds: range) -> dict[str, Any]:
    """Mean and standard error over draws of the initial features, each solved exactly."""
    import numpy as np

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


@app.command()
def dmft(
    alpha: Alpha,
    beta: Beta,
    gamma: Gamma,
    eta: Eta,
    width: Annotated[str, typer.Option(help="Width N, or inf.")],
    batch: Annotated[str, typer.Option(help="Samples a step, or inf for the whole population or data set.")],
    modes: Modes,
    steps: Annotated[int, typer.Option(help="Number of steps T.")],
    data: Annotated[str, typer.Option(help="Size P of a data set whose samples are used again, or inf.")] = "inf",
    sigma: Sigma = 0.0,
    bins: Annotated[int, typer.Option(help="At most this many nodes for the modes.")] = 60,
    method: Annotated[str, typer.Option(help="marched (fast) or iterated (the readable fixed point).")] = "marched",
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Mean loss of discrete SGD by dynamical mean-field theory, at finite width, batch, learning rate and data set.

    Example: featscale theory dmft --alpha 1.5 --beta 0.5 --gamma 1 --eta 0.1 --width 64 --batch 32 --modes 200 --steps 120
    """
    from featscale.spectra import PowerLaw
    from featscale.theory.dmft import dmft as solve

    require(method in ("marched", "iterated"), "method", method, "marched or iterated")
    N, B, P = _count("width", width), _count("batch", batch), _count("data", data)
    kind: Literal["marched", "iterated"] = "marched" if method == "marched" else "iterated"
    result = solve(PowerLaw(alpha, beta, modes), N, B, eta, gamma, steps, sigma=sigma, P=P, bins=bins, method=kind)
    emit(asdict(result), as_json)
    if plot is not None:
        from featscale.figures.theory import save_curves

        title = f"SGD by mean-field theory, α={alpha:g} β={beta:g} γ={gamma:g}, N = {width}, B = {batch}"
        save_curves(plot, result.step, {"loss": result.loss, "K": result.K}, "step", title)


@app.command()
def frontier(
    alpha: Alpha,
    beta: Beta,
    gamma: Gamma,
    compute: Annotated[str, typer.Option(help="Compute C = N t, comma-separated.")],
    widths: Annotated[
        str | None, typer.Option(help="Widths to choose from, comma-separated; without it any width.")
    ] = None,
    modes: Modes = 10**9,
    eta_over_batch: Annotated[
        float, typer.Option(help="Learning rate over batch size; 0 leaves batch noise out.")
    ] = 0.0,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Compute-optimal loss, width and training time from theory.

    Example: featscale theory frontier --alpha 1.5 --beta 0.5 --gamma 1 --widths 16,32,64,128,256 --compute 1e3,1e4,1e5
    """
    from featscale.spectra import PowerLaw
    from featscale.theory.frontier import frontier as solve

    C = numbers(compute, "compute", "comma-separated numbers > 0")
    N = None
    if widths is not None:
        try:
            N = [int(word) for word in widths.split(",")]
        except ValueError:
            raise BadInput("widths", widths, "comma-separated integers >= 1") from None
    result = solve(PowerLaw(alpha, beta, modes), gamma, C, N, eta_over_B=eta_over_batch)
    emit(asdict(result), as_json)
    if plot is not None:
        from featscale.figures.theory import save_curves

        panels = {"loss": result.loss, "width": result.width, "time": result.time}
        save_curves(plot, C, panels, "compute C = N t", f"frontier, α={alpha:g} β={beta:g} γ={gamma:g}")


@app.command()
def phase(
    alpha: Alpha,
    beta: Beta,
    lazy: Annotated[bool, typer.Option("--lazy", help="The lazy limit; without it rich.")] = False,
    batch_noise: Annotated[bool, typer.Option(help="Whether batches are finite.")] = True,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Which two terms of the loss balance on the compute-optimal frontier, and its exponents; --plot draws the whole diagram.

    Example: featscale theory phase --alpha 1.5 --beta 2.5
    """
    from featscale.theory.exponents import regime
    from featscale.theory.frontier import phase as of_task

    result = of_task(alpha, beta, not lazy, batch_noise)
    emit({"regime": regime(alpha, beta), **asdict(result)}, as_json)
    if plot is not None:
        from featscale.figures.theory import save_phases

        save_phases(plot, alpha, beta, not lazy, batch_noise)


@app.command()
def data(
    alpha: Alpha,
    beta: Beta,
    gamma: Gamma,
    modes: Modes,
    samples: Annotated[int, typer.Option(help="Size P of the data set.")],
    times: Annotated[str, typer.Option(help="Increasing flow times (learning rate times steps), comma-separated.")],
    width: Annotated[int | None, typer.Option(help="Width N; without it infinite.")] = None,
    sigma: Sigma = 0.0,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Mean train and test loss of gradient flow on P samples, the best time to stop, and the last test loss.

    Example: featscale theory data --alpha 1.5 --beta 0.5 --gamma 1 --modes 1000000 --samples 200 --sigma 0.3 --times 1,3,10,30,100,300,1000
    """
    import numpy as np

    from featscale.spectra import PowerLaw
    from featscale.theory.data_equivalent import data_equivalent, last_loss
    from featscale.theory.finite_data import early_stop

    t = numbers(times, "times", "comma-separated flow times >= 0")
    require(bool(np.all(np.diff(t) > 0)), "times", times, "increasing flow times")
    task = PowerLaw(alpha, beta, modes)
    result = data_equivalent(task, samples, gamma, t, width, sigma)
    stop = early_stop(result)
    last = last_loss(task, samples, width, sigma)
    emit(
        {**asdict(result), "stop_time": stop.t, "stop_loss": stop.loss, "stop_status": stop.status, "last": last},
        as_json,
    )
    if plot is not None:
        from featscale.figures.theory import save_curves

        panels = {"train loss": result.train, "test loss": result.test, "K": result.K}
        title = f"flow on P = {samples}, α={alpha:g} β={beta:g} γ={gamma:g}, N = {width or 'inf'}, σ = {sigma:g}"
        save_curves(plot, t, panels, "flow time t", title)


@app.command()
def sgd(
    alpha: Alpha,
    beta: Beta,
    gamma: Gamma,
    eta: Eta,
    batch: Annotated[str, typer.Option(help="Fresh samples a step, or inf for the whole population.")],
    steps: Annotated[float, typer.Option(help="Number of steps T, up to 1e12.")],
    width: Annotated[str, typer.Option(help="Width N, or inf.")] = "inf",
    modes: Modes = 10**9,
    sigma: Sigma = 0.0,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Mean loss of SGD for runs of any length: lazy exactly, rich to first order in the learning rate.

    Example: featscale theory sgd --alpha 1.5 --beta 0.5 --gamma 1 --eta 0.02 --batch 32 --steps 1e6
    """
    from featscale.spectra import PowerLaw
    from featscale.theory.sgd import sgd as solve

    N, B = _count("width", width), _count("batch", batch)
    require(steps.is_integer(), "steps", steps, "a whole number >= 0")
    result = solve(PowerLaw(alpha, beta, modes), N, B, eta, gamma, int(steps), sigma=sigma)
    emit(asdict(result), as_json)
    if plot is not None:
        from featscale.figures.theory import save_curves

        title = f"SGD, α={alpha:g} β={beta:g} γ={gamma:g}, N = {width}, B = {batch}, η = {eta:g}"
        save_curves(plot, result.step, {"loss": result.loss, "K": result.K}, "step", title)


@app.command()
def predict(
    alpha: Alpha,
    beta: Beta,
    gamma: Gamma,
    width: Annotated[int | None, typer.Option(help="Width N of the run; without it infinite.")] = None,
    eta: Annotated[float | None, typer.Option(help="Learning rate: when does it go unstable?")] = None,
    batch: Annotated[str, typer.Option(help="Samples a step, or inf; with --eta.")] = "inf",
    loss: Annotated[float | None, typer.Option(help="Target loss: which width reaches it?")] = None,
    time: Annotated[float, typer.Option(help="Flow time by which to reach --loss.")] = math.inf,
    compute: Annotated[
        str | None, typer.Option(help="Compute C = N t, comma-separated: what does richness gain over lazy?")
    ] = None,
    modes: Modes = 10**9,
    as_json: Json = False,
) -> None:
    """Before a run: when it turns rich, when its rate goes unstable, how wide it must be, what richness gains.

    Times are flow times (learning rate times steps); a question not asked has no answer in the output. An infinite value is none in JSON; its status says why.

    Example: featscale theory predict --alpha 1.5 --beta 0.5 --gamma 1 --eta 0.1 --loss 0.01 --compute 1e4
    """
    from featscale.simulate.problem import stability_bound
    from featscale.spectra import PowerLaw
    from featscale.theory import predictions

    B = _count("batch", batch)
    task = PowerLaw(alpha, beta, modes)
    measure = _measure(task, width, None if width else predictions.LIMIT_BINS)
    answers = {"crossover": predictions.crossover_time(measure, gamma)}
    if eta is not None:
        answers["stability"] = predictions.stability_time(measure, gamma, eta, stability_bound(task, B))
    if loss is not None:
        answers["width"] = predictions.width_for_loss(task, gamma, loss, time)
    result: dict[str, Any] = {}
    for name, answer in answers.items():
        field = name if name == "width" else f"{name}_time"
        result |= {field: answer.value, f"{name}_status": answer.status}
    if compute is not None:
        gain = predictions.gain_over_lazy(task, gamma, numbers(compute, "compute", "comma-separated numbers > 0"))
        result |= {field: value for field, value in asdict(gain).items() if field not in ("status", "residual", "cost")}
        result["gain_status"] = gain.status
    emit(result, as_json)


def _count(field: str, text: str) -> float:
    """A whole number, or inf; ``BadInput`` names `field` otherwise."""
    allowed = "an integer >= 1, or inf"
    value = float(numbers(text, field, allowed)[0])
    require("," not in text and (value == math.inf or value.is_integer()), field, text, allowed)
    return value
