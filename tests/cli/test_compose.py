"""Configurations: every experiment composes, the hash sees science only, and no bad override gets past the door."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featscale.cli import compose
from featscale.cli.train import door
from featscale.errors import BadInput
from featscale.runs.identity import config_hash

CONF = door().parent / "conf"
ONE_LINE = re.compile(r"[^\n:]+: .*: .+")


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_composes_and_opens_with_its_command(experiment):
    compose.compose(CONF, [f"experiment={experiment}"])
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    assert f"experiment={experiment}" in text
    assert "Must show:" in text


@pytest.mark.parametrize("experiment", ["circle_q", "circle_relu_power"])
def test_scale_picks_the_size_of_an_experiment(experiment):
    small, default, paper = (
        compose.compose(CONF, [f"experiment={experiment}", *words]) for words in (["scale=small"], [], ["scale=paper"])
    )
    assert (small.model.N, small.steps) == (default.model.N, default.steps)
    assert paper.model.N > small.model.N
    assert paper.steps * paper.data.B > small.steps * small.data.B
    assert paper.data.q == small.data.q


@pytest.mark.parametrize(
    "group", ["model", "data", "parameterization", "optimizer", "loss", "trainer", "logger", "scale"]
)
def test_every_option_of_every_group_composes(group):
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    assert options
    for option in options:
        assert compose.compose(CONF, [f"{group}={option}"]).name


def science_hash(*overrides):
    return config_hash(compose.science(compose.compose(CONF, overrides)))


def test_the_hash_sees_science_and_nothing_else():
    base = science_hash()
    for same in (
        "trainer.chunk=7",
        "logger=none",
        "name=other",
        "paths.runs=/tmp/x",
        "seed=0",
        "data.B=inf",
        "retry_failed=true",
    ):
        assert science_hash(same) == base
    for other in (
        "seed=1",
        "seeds=2",
        "steps=999",
        "model.N=255",
        "data.alpha=1.6",
        "optimizer.eta0=0.4",
        "precision=float32",
        "loss=cross_entropy",
    ):
        assert science_hash(other) != base
    assert science_hash("data=mnist", "paths.data=/a") == science_hash("data=mnist", "paths.data=/b")


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("modle=mlp", "modle"),
        ("model=mlpp", "model"),
        ("model.widht=3", "model.widht"),
        ("+foo=3", "foo"),
        ("~seed", "seed"),
        ("steps=1e3", "steps"),
        ("steps=many", "steps"),
        ("steps=0", "steps"),
        ("seeds=0", "seeds"),
        ("seed=-1", "seed"),
        ("seed=null", "seed"),
        ("precision=float16", "precision"),
        ("experiment=nope", "experiment"),
        ("data=null", "configuration"),
        ("model.N=[1,", "configuration"),
        ("name=${nowhere}", "name"),
    ],
)
def test_known_mistakes_name_the_field(override, field):
    with pytest.raises(BadInput) as caught:
        compose.compose(CONF, [override])
    assert caught.value.field == field
    assert ONE_LINE.fullmatch(str(caught.value))


KEYS = [
    "steps",
    "seeds",
    "seed",
    "rows_per_decade",
    "precision",
    "model",
    "data",
    "modle",
    "model.N",
    "model.widht",
    "data.alpha",
    "name",
]
BAD_VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "null",
            "nan",
            "-1",
            "0",
            "1e400",
            "abc",
            "[1,",
            "{a:",
            "${x}",
            "${",
            "'",
            "\\",
            "\x00",
            "..",
            "a/b",
            "🌡",
            " ",
        ]
    ),
    st.text(max_size=12),
)


@pytest.mark.slow
@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "+", "++", "~"]), st.sampled_from(KEYS) | st.text(max_size=8), BAD_VALUES),
        min_size=1,
        max_size=3,
    )
)
@example([("", "steps", "1e3")])
def test_random_overrides_compose_or_are_refused_in_one_line(parts):
    """Whatever is typed: a configuration that passed every check, or one line; never another exception."""
    line, cfg = None, None
    try:
        cfg = compose.compose(CONF, [f"{mark}{key}={value}" for mark, key, value in parts])
    except BadInput as error:
        line = str(error)
    if cfg is None:
        assert ONE_LINE.fullmatch(line)
    else:
        assert cfg.steps >= 1
        assert cfg.seeds >= 1
        assert set(cfg) == {entry.name for entry in compose.fields(compose.RunSchema)}


def test_conf_holds_nothing_but_values():
    assert {path.suffix for path in Path(CONF).rglob("*") if path.is_file()} == {".yaml"}
