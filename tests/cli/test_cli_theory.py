"""The theory and simulate commands of the contract: keys, values, exit codes and one line for bad input."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featscale.cli.app import app
from featscale.cli.crew import THREADS
from featscale.cli.output import run
from featscale.simulate import curves
from featscale.spectra import PowerLaw
from featscale.theory.flow import gradient_flow

FLOW = ["theory", "flow", "--alpha", "1.5", "--beta", "0.5", "--gamma", "1", "--modes", "500", "--times", "1,10"]
SIMULATE = [
    "simulate",
    "--alpha",
    "1.5",
    "--beta",
    "0.5",
    "--gamma",
    "1",
    "--eta",
    "0.2",
    "--width",
    "16",
    "--modes",
    "100",
    "--steps",
    "40",
    "--seeds",
    "2",
]


@pytest.fixture
def call(capsys):
    """Run a command line; returns (exit code, stdout, stderr)."""

    def command(*arguments):
        code = run(app, list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def answer(call, *arguments):
    code, out, err = call(*arguments, "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    return json.loads(out)


def test_exponents_have_the_keys_of_the_contract(call):
    table = answer(call, "theory", "exponents", "--alpha", "1.5", "--beta", "0.5")
    contract = "regime chi_lazy chi_rich width_exponent data_exponent sgd_exponent"
    contract += " compute_exponent_lazy compute_exponent_rich width_allocation_lazy width_allocation_rich"
    assert set(contract.split()) <= set(table)
    assert table["chi_rich"] == pytest.approx(2 / 3)


def test_flow_sums_every_mode_unless_bins_are_given(call):
    exact = gradient_flow(PowerLaw(1.5, 0.5, 500).measure(), 1.0, [1.0, 10.0])
    assert answer(call, *FLOW)["loss"] == pytest.approx(exact.loss.tolist(), rel=1e-12)
    binned = answer(call, *FLOW, "--bins", "60")["loss"]
    assert binned == pytest.approx(exact.loss.tolist(), rel=1e-4)
    assert binned != pytest.approx(exact.loss.tolist(), rel=1e-12)


def test_flow_over_draws_has_an_error_and_differs_from_infinite_width(call):
    drawn = answer(call, *FLOW, "--width", "8", "--draws", "6")
    assert set(drawn) >= {"t", "loss", "loss_sem", "K"}
    assert drawn["loss"][1] > answer(call, *FLOW)["loss"][1] + 4 * drawn["loss_sem"][1]


def test_simulate_both_methods_agree(call):
    fast, naive = (answer(call, *SIMULATE, "--method", method) for method in ("collapsed", "naive"))
    assert fast["step"] == naive["step"]
    assert fast["loss_mean"] == pytest.approx(naive["loss_mean"], rel=1e-12)
    assert len(fast["loss_sem"]) == len(fast["step"])


@pytest.mark.parametrize(("said", "threads"), [(None, 1), ("2", 2)])
def test_simulate_takes_one_thread_unless_told(said, threads, call, monkeypatch):
    before, seen = torch.get_num_threads(), []
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    if said is not None:
        monkeypatch.setenv(THREADS[0], said)
    original = curves.simulate

    def watched(*parts, **options):
        seen.append(torch.get_num_threads())
        return original(*parts, **options)

    monkeypatch.setattr(curves, "simulate", watched)
    torch.set_num_threads(2)
    try:
        answer(call, *SIMULATE)
    finally:
        torch.set_num_threads(before)
    assert seen == [threads]


DMFT = "theory dmft --alpha 1.5 --beta 0.5 --gamma 1 --eta 0.1 --width 16 --batch 8 --modes 100 --steps 12".split()
FRONTIER = "theory frontier --alpha 1.5 --beta 0.5 --gamma 1 --modes 10000 --widths 8,16,32 --compute 1e2,1e3".split()


def test_dmft_has_the_keys_of_the_contract_and_starts_at_the_power(call):
    curve = answer(call, *DMFT)
    assert curve["step"] == list(range(13))
    assert curve["loss"][0] == pytest.approx(PowerLaw(1.5, 0.5, 100).measure().power, rel=1e-6)


def test_frontier_chooses_among_the_widths_and_spends_the_compute(call):
    best = answer(call, *FRONTIER)
    assert set(best["width"]) <= {8, 16, 32}
    assert [N * t for N, t in zip(best["width"], best["time"], strict=True)] == pytest.approx([1e2, 1e3])
    assert best["loss"][1] < best["loss"][0]


def test_flow_at_a_width_lies_above_infinite_width(call):
    wide, narrow = answer(call, *FLOW), answer(call, *FLOW, "--width", "8")
    assert narrow["loss"][1] > 1.2 * wide["loss"][1]


def test_phase_names_what_balances(call):
    answered = answer(call, "theory", "phase", "--alpha", "1.5", "--beta", "0.5")
    assert answered["balance"] == ["gradient flow", "width bottleneck"]


TASK = "--alpha 1.5 --beta 0.5 --gamma 1".split()
DATA = ["theory", "data", *TASK, *"--modes 1000 --samples 50 --sigma 0.5 --times 1,10,30,100,1e3,1e4".split()]
SGD = ["theory", "sgd", *TASK, *"--modes 1000 --eta 0.1 --batch 8 --steps 1e3".split()]


def test_data_stops_early_where_labels_are_noisy(call):
    noisy = answer(call, *DATA)
    assert noisy["stop_status"] == "ok"
    assert 1 < noisy["stop_time"] < 1e4
    assert noisy["stop_loss"] < noisy["last"]
    assert noisy["test"][-1] == pytest.approx(noisy["last"], rel=1e-2)


def test_sgd_takes_a_million_steps_and_is_the_mean_field_theory_where_both_can(call):
    longer = answer(call, *SGD[:-1], "1e6")
    assert longer["step"][-1] == 10**6
    assert longer["loss"][-1] < 0.1 * longer["loss"][0]
    short = answer(call, *SGD[:-1], "12", "--width", "16")
    assert short["loss"][-1] == pytest.approx(answer(call, *DMFT, "--modes", "1000")["loss"][-1], rel=0.03)


def test_predict_answers_what_was_asked(call):
    asked = answer(
        call, "theory", "predict", *TASK, "--modes", "100000", "--eta", "0.2", "--loss", "0.05", "--time", "1e3"
    )
    assert 1 < asked["crossover_time"] < 10
    assert asked["stability_time"] > 100
    assert asked["width"] == pytest.approx(round(asked["width"]))
    assert "loss_ratio" not in asked
    easy = answer(call, "theory", "predict", "--alpha", "1.5", "--beta", "2", "--gamma", "0.1", "--modes", "1000")
    assert easy["crossover_time"] is None
    assert "never" in easy["crossover_status"]
    assert set(easy) == {"crossover_time", "crossover_status"}


def test_predict_finds_a_gain_on_a_hard_task_only(call):
    gains = [
        answer(
            call,
            "theory",
            "predict",
            "--alpha",
            "2",
            "--beta",
            beta,
            "--gamma",
            "1",
            "--modes",
            "10000",
            "--compute",
            "1e3",
        )
        for beta in ("0.5", "1.9")
    ]
    assert gains[0]["compute_ratio"][0] > 2
    assert gains[0]["compute_ratio"][0] > 1.3 * gains[1]["compute_ratio"][0]


@pytest.mark.parametrize(
    "command",
    [FLOW, DMFT, FRONTIER, DATA, SGD, ["theory", "phase", "--alpha", "2", "--beta", "1.2"]],
    ids=lambda words: words[1],
)
def test_plot_draws_what_was_computed(call, command, tmp_path):
    path = tmp_path / "plot.png"
    assert answer(call, *command, "--plot", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    for wrong in (tmp_path / "no" / "plot.png", tmp_path / "plot.txt"):
        code, out, err = call(*command, "--plot", str(wrong), "--json")
        assert (code, out) == (2, "")
        assert err.startswith("error: plot: ")


def test_readable_output_without_json(call):
    code, out, _ = call("theory", "exponents", "--alpha", "1.5", "--beta", "0.5")
    assert code == 0
    assert "chi_rich" in out
    assert call(*SIMULATE)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["theory", "exponents", "--alpha", "1", "--beta", "0.5"], "alpha"),
        (["theory", "exponents", "--alpha", "1.5", "--beta", "0"], "beta"),
        (["theory", "exponents", "--alpha", "nan", "--beta", "1"], "alpha"),
        (["theory", "exponents", "--alpha", "x", "--beta", "1"], "--alpha"),
        (["theory", "exponents", "--alpha", "2"], "--beta"),
        ([*FLOW[:6], "--gamma", "-1", *FLOW[8:]], "gamma"),
        ([*FLOW[:-1], "1,-2"], "times"),
        ([*FLOW[:-1], "1,x"], "times"),
        ([*FLOW, "--bins", "2"], "bins"),
        ([*FLOW, "--draws", "2"], "draws"),
        ([*FLOW, "--draws", "2", "--width", "501"], "width"),
        ([*SIMULATE, "--batch", "0"], "batch"),
        ([*SIMULATE, "--batch", "many"], "batch"),
        ([*SIMULATE, "--eta", "5"], "eta"),
        ([*SIMULATE, "--width", "101"], "width"),
        ([*SIMULATE, "--method", "fast"], "method"),
        ([*SIMULATE, "--seeds", "0"], "seeds"),
        ([*DMFT[:-1], "-1"], "steps"),
        ([*DMFT, "--method", "fast"], "method"),
        ([*DMFT, "--data", "4"], "batch"),
        ([*DMFT, "--width", "x"], "width"),
        ([*FRONTIER[:-1], "0"], "compute"),
        ([*FRONTIER, "--widths", "8,x"], "widths"),
        (["theory", "nothing"], "arguments"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call, arguments, field):
    code, out, err = call(*arguments, "--json")
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: {re.escape(field)}: .+\n", err)


WORDS = st.sampled_from(["nan", "inf", "-inf", "0", "-1", "1e999", "", "x", "1,2", "--", "--json", "1.5", "3", "é"])


@settings(max_examples=300)
@given(WORDS, WORDS, WORDS, st.sampled_from(["1", "0", "-1", "10", "x", "1e3"]), WORDS)
def test_random_arguments_are_answered_or_refused(alpha, beta, gamma, modes, times):
    """Whatever is typed: an answer or exit code 2, never an exception."""
    arguments = [
        "theory",
        "flow",
        "--alpha",
        alpha,
        "--beta",
        beta,
        "--gamma",
        gamma,
        "--modes",
        modes,
        "--times",
        times,
    ]
    assert run(app, [*arguments, "--json"]) in (0, 2)


def test_help_of_every_command_has_an_example(call):
    for command in (["theory", "exponents"], ["theory", "flow"], ["simulate"], ["figure"], ["train"]):
        code, out, _ = call(*command, "--help")
        assert code == 0
        assert "Example" in out


def test_numbers_survive_json():
    from featscale.cli.output import plain

    assert plain({"a": np.array([1.0, np.nan]), "b": np.float64(2), "c": (1, np.inf)}) == {
        "a": [1.0, None],
        "b": 2.0,
        "c": [1, None],
    }
