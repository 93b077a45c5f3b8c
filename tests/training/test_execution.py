"""Steps in fewer digits and compiled steps beside plain ones, and what is refused."""

from __future__ import annotations

import shutil
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from rounding import BF16_BITS, TF32_BITS, Rounded, rounded
from test_ensemble import Blobs
from tiny import planned
from tolerances import IDENTITY

from datamodules.circle import Circle
from datamodules.power_law import PowerLawFeatures
from featscale.errors import BadInput
from featscale.models.cnn import CNN
from featscale.models.mlp import MLP
from featscale.models.residual import ResidualMLP
from featscale.training.ddp import SlicedParts
from featscale.training.execution import BF16, EXACT, PRECISIONS, TF32, Execution, float32_products
from featscale.training.march import March
from featscale.training.network import Network
from featscale.training.optimizer import SGD, Adam
from featscale.training.projected_linear import ProjectedLinear
from featscale.training.run import Request
from featscale.training.scaling import Scaling

IN_BF16 = Execution(BF16)
COMPILED = Execution(compile=True)
compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def network(execution=Execution(), gamma=1.0, dtype=torch.float32, architecture=None, N=64, **changes):  # noqa: B008
    """A network on the circle, ready for its first step."""
    data = Circle(q=1.0, k_max=20, B=64)
    data.place("cpu", dtype)
    data.setup()
    parts = {"optimizer": SGD(0.08), "T": 60, "seeds": (0,), "rows_per_decade": 8, "execution": execution} | changes
    made = Network(N, architecture or partial(MLP, depth=3), data, Scaling("mean_field", gamma), dtype=dtype, **parts)
    made.on_fit_start()
    return made


def curve(module, T=None):
    March([module], 100).to(T or module.T)
    return torch.tensor([row["loss"] for row in module.rows], dtype=torch.float64)


def off(a, b):
    """The largest relative difference of two curves."""
    return float((a / b - 1).abs().max())


def test_rounding_to_seven_bits_is_torchs_bfloat16():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-30, 30, 1000)
    x[:4] = torch.tensor([0.0, float("inf"), float("-inf"), 1 + 2.0**-8])
    assert torch.equal(rounded(x, BF16_BITS), x.bfloat16().float())
    assert 0 < float((rounded(x, TF32_BITS)[4:] / x[4:] - 1).abs().max()) <= TF32.roundoff


@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0])
def test_a_curve_in_bf16_is_off_by_about_its_rounding(gamma):
    exact = curve(network(gamma=gamma, dtype=torch.float64))
    assert 1e-6 < off(curve(network(IN_BF16, gamma)), exact) < 3 * BF16.roundoff
    assert off(curve(network(gamma=gamma)), exact) < 1e-5


def test_emulated_tf32_lies_between_bf16_and_float32():
    exact = curve(network(dtype=torch.float64))
    tf32 = network()
    with Rounded(TF32_BITS) as mode:
        tf32.advance_by_autograd(0, tf32.T)
    tf32.record()
    error = float(abs(tf32.rows[-1]["loss"] / exact[-1] - 1))
    assert mode.count > 10 * tf32.T
    assert 1e-6 < error < 3 * TF32.roundoff


@pytest.mark.parametrize("gamma", [1.0, 0.3, 0.1, 0.02])
@pytest.mark.parametrize("N", [64, 256])
def test_the_error_of_f_is_that_of_the_docstring(N, gamma):
    """A bound, and within ten times of it, for bf16 and for tf32."""
    trained = network(gamma=gamma, N=N)
    trained.advance(0, 30)
    x = trained.test[0]
    with torch.no_grad():
        f = trained.f(x)
        with BF16.forward(trained.device):
            in_bf16 = trained.f(x)
        with Rounded(TF32_BITS):
            in_tf32 = trained.f(x)
    for products, other in ((BF16, in_bf16), (TF32, in_tf32)):
        error, bound = float((other - f).norm() / f.norm()), products.error(gamma, N**-0.5)
        assert bound / 10 < error < bound


def test_only_products_of_features_with_features_lose_digits():
    """A network of one hidden layer has none; parameters stay float32 and the curve is measured in it."""
    shallow = [network(execution, architecture=partial(MLP, depth=1)) for execution in (IN_BF16, Execution())]
    for one in shallow:
        one.advance_by_autograd(0, 5)
    assert shallow[0].observe() == shallow[1].observe()
    deep, plain = network(IN_BF16), network()
    x, y = deep.data.batch(0, 0)
    deep.advance(0, 5)
    plain.load_state_dict(deep.state_dict())
    assert deep.observe() == plain.observe()
    assert {tensor.dtype for tensor in deep.tensors} == {torch.float32}
    assert not torch.equal(deep.gradients(x, y)[1], plain.gradients(x, y)[1])


def test_images_and_residual_branches_in_bf16():
    data = Blobs(8)
    data.place("cpu", torch.float32)
    for architecture in (partial(CNN, depth=2, poolings=0), partial(ResidualMLP, depth=2)):
        made = [
            Network(
                16,
                architecture,
                data,
                Scaling("mean_field", 1.0),
                Adam(0.02),
                torch.float32,
                T=20,
                seeds=(0,),
                execution=execution,
            )
            for execution in (Execution(), IN_BF16)
        ]
        for one in made:
            one.on_fit_start()
        exact, in_bf16 = map(curve, made)
        assert 0 < off(in_bf16, exact) < 0.05


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: TF32.check("cpu"), r"precision: tf32: float32 here: tf32 is an option of GPUs .*"),
        (
            lambda: network(IN_BF16, gamma=0.015),
            r"parameterization\.gamma: 0\.015: 0, or a number >= 0\.016 at this width with precision=bf16, .*; or precision=float32",
        ),
        (lambda: linear(IN_BF16), r"precision: bf16: float32 or float64 for ProjectedLinear"),
        (lambda: linear(COMPILED), r"trainer\.compile: True: false: ProjectedLinear makes its steps in one way"),
        (lambda: linear(Execution(cuda_graph=True)), r"trainer\.cuda_graph: True: false: ProjectedLinear makes .*"),
        (lambda: Execution(cuda_graph=True).check("cpu"), r"trainer\.cuda_graph: True: false: no GPU is used here"),
        (lambda: request(trainer__compile="yes"), r"trainer\.compile: yes: true or false"),
        (lambda: request(precision="tf32"), r"precision: tf32: float32 here: .*"),
    ],
)
def test_refused_in_one_line(make, line):
    with pytest.raises(BadInput, match=f"^{line}$"):
        make()


def linear(execution):
    data = PowerLawFeatures(alpha=1.5, beta=0.5, M=100)
    return ProjectedLinear(
        8, data, Scaling("mean_field", 1.0), SGD(0.1), torch.float64, T=5, seeds=(0,), execution=execution
    )


def request(**changes):
    """A run as a manifest has it."""
    precision = changes.pop("precision", "float32")
    run = planned(**{"trainer__compile": False, **changes})
    return Request({**run.config, "precision": precision}, run.science)


def test_a_request_says_how_steps_are_made():
    assert request().execution == Execution()
    assert request(precision="bf16", trainer__compile=True).execution == Execution(BF16, compile=True)
    before_there_was_a_choice = planned()
    assert "compile" not in before_there_was_a_choice.config["trainer"]
    assert Request(before_there_was_a_choice.config, before_there_was_a_choice.science).execution == Execution()
    assert [PRECISIONS[name].dtype for name in ("float64", "tf32", "bf16")] == [
        torch.float64,
        torch.float32,
        torch.float32,
    ]


def test_the_switches_of_a_gpu_are_set_for_the_steps_only():
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision
    for products, kind in ((TF32, "tf32"), (EXACT, "ieee"), (BF16, "ieee")):
        with products.steps(torch.device("cuda")):
            assert (matmul.fp32_precision, conv.fp32_precision) == (kind, kind)
        assert (matmul.fp32_precision, conv.fp32_precision) == before
    with pytest.raises(ZeroDivisionError), float32_products("tf32"):
        1 / 0  # noqa: B018
    assert (matmul.fp32_precision, conv.fp32_precision) == before
    with float32_products("tf32"), EXACT.steps(torch.device("cpu")):
        assert matmul.fp32_precision == "tf32"
    assert torch.get_float32_matmul_precision() == "highest"


def test_networks_in_bf16_or_compiled_are_not_stacked_and_not_joined_with_others():
    plain, in_bf16 = network(), network(IN_BF16)
    assert plain.stacks
    assert not in_bf16.stacks
    assert in_bf16.together() == 1
    assert in_bf16.shape() != plain.shape()


def test_without_a_compiler_there_is_one_line_before_training():
    config = torch._inductor.config.patch({"cpp.cxx": ("/no/such/compiler",), "force_disable_caches": True})
    with (
        config,
        pytest.raises(BadInput, match=r"^trainer\.compile: True: false: torch\.compile fails here: .*compiler.*$"),
    ):
        network(COMPILED, N=8)


@compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("gamma", "dtype", "changes"),
    [
        (1.0, torch.float64, {}),
        (0.0, torch.float64, {"optimizer": Adam(0.02)}),
        (1.0, torch.float32, {"architecture": partial(MLP, depth=2, activation="gelu")}),
    ],
)
def test_a_compiled_curve_is_the_plain_one_to_rounding_and_resumes_to_the_bit(gamma, dtype, changes):
    compiled, halves, plain = (network(how, gamma, dtype, N=32, **changes) for how in (COMPILED, COMPILED, Execution()))
    whole = curve(compiled)
    curve(halves, 23)
    again = network(COMPILED, gamma, dtype, N=32, **changes)
    again.load_state_dict(halves.state_dict())
    again.advance(23, 60)
    assert all(torch.equal(a, b) for a, b in zip(compiled.tensors, again.tensors, strict=True))
    tolerance = 1000 * IDENTITY if dtype == torch.float64 else 1e-4
    assert off(whole, curve(plain)) < tolerance


@compiler
@pytest.mark.slow
def test_compiled_and_plain_bf16_differ_by_bf16s_rounding():
    whole, plain = (curve(network(Execution(BF16, compile=compiled), N=32)) for compiled in (True, False))
    assert off(whole, plain) < 3 * BF16.roundoff


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_a_curve_is_that_of_a_cpu_to_its_rounding(precision, compiled):
    products = PRECISIONS[precision].products
    there = network(Execution(products))
    there.data.place("cuda", torch.float32)
    there.data.setup()
    there.to("cuda").execution = Execution(products, compile=compiled)
    there.on_fit_start()
    assert off(curve(there), curve(network())) < 1e-4 + 3 * products.roundoff


def test_a_team_records_no_steps():
    parts = SlicedParts(lambda group: group, team=None)
    with pytest.raises(BadInput, match=r"^trainer\.cuda_graph: True: false here: averaging is no part of a recording"):
        parts.module(SimpleNamespace(execution=Execution(cuda_graph=True)))
