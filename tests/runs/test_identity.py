"""The hash and the folder of a run: equal for equal science, different for different, and never outside the root."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.runs.identity import canonical, config_hash, flattened, is_hash, run_path

GOLDEN = {"a": 1, "b": [1, 2.5, math.inf], "c": {"x": None, "y": True}}
KEYS = st.text(max_size=5)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5))
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
SCIENCES = st.dictionaries(KEYS, VALUES, max_size=4)


def reordered(value: Any) -> Any:
    """`value` with the keys of all its mappings the other way round."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


def other_writing(value: Any) -> Any:
    """`value` with tuples for lists, numpy numbers for Python's, and floats for integers that are floats."""
    if isinstance(value, dict):
        return {key: other_writing(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(other_writing(item) for item in value)
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int) and abs(value) < 2**53:
        return np.float64(value)
    return np.float64(value) if isinstance(value, float) else value


def test_golden_hashes() -> None:
    assert config_hash(GOLDEN) == "429d903b6e55"
    assert config_hash({}) == "44136fa355b3"


def test_another_process_finds_the_same_hash() -> None:
    code = "import json, sys; from featscale.runs.identity import config_hash;print(config_hash(json.load(sys.stdin)))"
    science = {"b": {"y": 0.1, "x": 1e300}, "a": ["é", 1e-9, -7]}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(science), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == config_hash(science)


@settings(max_examples=50)
@given(SCIENCES)
def test_the_order_of_keys_makes_no_difference(science: dict[str, Any]) -> None:
    assert config_hash(reordered(science)) == config_hash(science)


@settings(max_examples=50)
@given(SCIENCES)
def test_the_way_of_writing_makes_no_difference(science: dict[str, Any]) -> None:
    assert config_hash(other_writing(science)) == config_hash(science)


@settings(max_examples=50)
@given(SCIENCES)
def test_the_canonical_form_is_its_own_and_survives_json(science: dict[str, Any]) -> None:
    form = canonical(science)
    assert canonical(form) == form
    assert config_hash(json.loads(json.dumps(form))) == config_hash(science)


@settings(max_examples=50)
@given(SCIENCES, KEYS, LEAVES, LEAVES)
def test_another_value_has_another_hash(science: dict[str, Any], key: str, one: Any, other: Any) -> None:
    same = canonical(one) == canonical(other) and isinstance(one, bool) == isinstance(other, bool)
    inside = [config_hash({"outer": {**science, key: [value]}}) for value in (one, other)]
    assert (inside[0] == inside[1]) == same


def test_values_that_are_easily_confused_are_told_apart() -> None:
    values = [
        1,
        True,
        "1",
        [1],
        None,
        "None",
        0,
        False,
        "",
        [],
        {},
        1.5,
        1 + 2**-52,
        2**53 + 1,
        2**53,
        -1,
        "inf",
        "-inf",
    ]
    hashes = {config_hash({"x": value}) for value in values}
    assert len(hashes) == len(values)
    assert config_hash({"x": {"y": 1}}) != config_hash({"x.y": 1})
    assert config_hash({"x": 1, "y": None}) != config_hash({"x": 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0.0, -0.0),
        ([1, 2], (1, 2)),
        (0.1, np.float64(0.1)),
        (0.5, np.float32(0.5)),
        (0.5, np.longdouble(0.5)),
        (3, np.int32(3)),
        ([1.0, 2.5], np.array([1, 2.5])),
        (math.inf, "inf"),
        (-np.inf, "-inf"),
        (1e22, 10**22),
    ],
)
def test_values_that_are_the_same_have_one_hash(one: Any, other: Any) -> None:
    assert config_hash({"x": one}) == config_hash({"x": other})


@pytest.mark.parametrize(
    ("science", "field"),
    [
        ({"model": {"gain": math.nan}}, "science.model.gain"),
        ({"model": [1, np.float64("nan")]}, "science.model[1]"),
        ({"data": Path("x")}, "science.data"),
        ({"data": {1, 2}}, "science.data"),
        ({"data": b"x"}, "science.data"),
        ({"data": 1j}, "science.data"),
        ({1: 2}, "science"),
    ],
)
def test_what_has_no_name_is_refused_and_named(science: Any, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        config_hash(science)
    assert caught.value.field == field


def test_leaves_have_dotted_names() -> None:
    assert flattened({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": 1, "a.d": [1, 2], "e": None}


@pytest.mark.parametrize("name", ["width", "γ=1,N=64", "a..b", "x" * 100, "two words", "-"])
def test_a_good_name_makes_a_folder_in_the_root(name: str, tmp_path: Path) -> None:
    path = run_path(tmp_path, name, "0123456789ab")
    path.mkdir(parents=True)
    assert path == tmp_path / name / "0123456789ab"
    assert path.resolve().parents[1] == tmp_path.resolve()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "../up", "a/b", "a\\b", "/etc", "x" * 101, "字" * 86, "a\nb", "a\0", "\x1b[31m", " a", "a ", "\ud800", None, 3],
)  # fmt: skip
def test_a_hostile_name_is_refused(name: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^name: "):
        run_path(tmp_path, name, "0123456789ab")


@pytest.mark.parametrize(
    "text", ["", "..", "0123456789a", "0123456789abc", "0123456789AB", "0123456789ag", "0123456789ab\n", None]
)
def test_what_is_no_hash_is_refused(text: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^hash: "):
        run_path(tmp_path, "name", text)
    assert text is None or not is_hash(text)
    assert is_hash("0123456789ab")
