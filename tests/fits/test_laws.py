"""Laws as rows: values against the formula written out, derivatives against differences, names and bounds."""

import numpy as np
import pytest
from tolerances import IDENTITY

from featscale.errors import BadInput
from featscale.fits.laws import (
    LAWS,
    centred,
    curvature,
    design,
    evaluate,
    law_named,
    log_loss,
    named,
    uncentred,
    vector,
)


def case(name, n=9, K=3):
    law = LAWS[name]
    rng = np.random.default_rng(0)
    x = {v: np.exp(rng.normal(size=n)) for v in law.variables}
    return law, design(law, x), x, 0.5 * rng.normal(size=(K, len(law.parameters))), rng.normal(size=(K, n))


FORMULAS = {
    "chinchilla": lambda x, v: v["E"] + v["A"] * x["N"] ** -v["alpha"] + v["B"] * x["D"] ** -v["beta"],
    "max": lambda x, v: np.maximum(v["A"] * x["t"] ** -v["chi"], v["B"] * x["N"] ** -v["r"]),
    "chinchilla_qnorm": lambda x, v: (
        v["E"]
        + ((v["A"] * x["N"] ** -v["alpha"]) ** v["q"] + (v["B"] * x["D"] ** -v["beta"]) ** v["q"]) ** (1 / v["q"])
    ),
    "bottleneck": lambda x, v: (
        v["A"] * x["t"] ** -v["chi"]
        + v["B"] * x["N"] ** -v["r"]
        + v["F"] / x["N"] * x["t"] ** -v["transient"]
        + v["G"] * x["noise"] * x["t"] ** -v["sgd"]
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_row_is_its_formula(name):
    law, on, x, p, _ = case(name)
    values = named(law, uncentred(law, on.centre, p[0]))
    np.testing.assert_allclose(np.exp(log_loss(on, p[:1])[0]), FORMULAS[name](x, values), rtol=IDENTITY)


@pytest.mark.parametrize("name", LAWS)
def test_derivatives_are_those_of_differences(name):
    _, on, _, p, weight = case(name)
    at, h = evaluate(on, p), 1e-6
    steps = h * np.eye(p.shape[1])
    J = np.stack([(log_loss(on, p + d) - log_loss(on, p - d)) / (2 * h) for d in steps], axis=-1)
    np.testing.assert_allclose(at.J, J, atol=1e-8)
    slopes = [np.einsum("kn,knp->kp", weight, evaluate(on, p + d).J - evaluate(on, p - d).J) / (2 * h) for d in steps]
    np.testing.assert_allclose(curvature(on, p, at, weight), np.stack(slopes, axis=-1), atol=1e-7)


@pytest.mark.parametrize("name", LAWS)
def test_centring_and_naming_are_undone(name):
    law, on, _, p, _ = case(name)
    np.testing.assert_allclose(uncentred(law, on.centre, centred(law, on.centre, p)), p, atol=IDENTITY)
    np.testing.assert_allclose(vector(law, named(law, p[0])), p[0], atol=IDENTITY)


def test_exponents_above_one_and_no_floor_are_allowed():
    lower, upper = LAWS["sum_floor"].limits()
    bounds = dict(zip(LAWS["sum_floor"].parameters, zip(lower, upper, strict=True), strict=True))
    assert bounds["chi"][0] == 0
    assert bounds["chi"][1] > 1
    assert np.exp(bounds["E"][0]) < 1e-25
    assert LAWS["sum_floor"].without("E") == LAWS["sum_floor"].__class__("sum_floor", LAWS["sum"].terms)


def test_a_large_q_is_the_maximum_and_one_is_the_sum():
    x = case("qnorm")[2]
    on, maximum, total = (design(LAWS[name], x, {"t": 0.0, "N": 0.0}) for name in ("qnorm", "max", "sum"))
    p = np.array([[0.3, -0.2, 0.7, 1.5]])
    at_one, at_many = (log_loss(on, np.append(p, [[np.log(q)]], axis=1)) for q in (1.0, 1e4))
    np.testing.assert_allclose(at_one, log_loss(total, p), rtol=IDENTITY)
    np.testing.assert_allclose(at_many, log_loss(maximum, p), atol=1e-4)
    assert np.abs(at_one - at_many).max() > 0.1


def test_an_unknown_name_lists_the_laws():
    with pytest.raises(BadInput, match=r"law: nosuch: one of chinchilla, .*bottleneck"):
        law_named("nosuch")
    with pytest.raises(BadInput, match="beta: None: a value for every parameter of chinchilla"):
        vector(LAWS["chinchilla"], {"E": 1.0, "A": 1.0, "B": 1.0, "alpha": 1.0})
