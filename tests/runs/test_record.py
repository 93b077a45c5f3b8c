"""The record: it comes back as it was written, and a damaged one is one line, whatever is in it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.runs.identity import config_hash
from featscale.runs.record import MIGRATIONS, REQUIRED, SCHEMA, Record, Stop, read_record

SCIENCE = {"model": {"N": 64}, "data": {"B": "inf"}, "seed": 0, "steps": 100}
DONE = Record(
    status="done",
    name="width",
    hash=config_hash(SCIENCE),
    science=SCIENCE,
    seeds=(0, 1),
    step=100,
    steps=100,
    wall_seconds=1.5,
    started="2025-01-01T00:00:00+00:00",
    ended="2025-01-01T00:00:02+00:00",
    metrics={"loss": 0.25, "K": 1.5},
    flops=1e9,
    overrides=("model.N=64",),
    host="node1",
    device="cpu",
    versions={"python": "3.11.7", "torch": None},
    git={"commit": "0" * 40, "dirty": False, "diff": None},
)
DIVERGED = replace(
    DONE,
    status="diverged",
    cause="seed 1 diverged at step 7",
    stopped=(Stop(1, 7, 3.5, math.inf, 2.0),),
    metrics={"loss": math.inf},
)
FAILED = replace(
    DONE, status="failed", cause="RuntimeError: é", stopped=(Stop(None, 3, 1.5),), git=None, flops=None, step=3
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("record", [DONE, DIVERGED, FAILED], ids=lambda record: record.status)
def test_a_record_comes_back_as_it_was_written(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(record.to_json())
    assert read_record(path) == record
    assert config_hash(read_record(path).science) == record.hash
    strict = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict["schema"] == SCHEMA


def test_nan_and_numpy_numbers_are_written_as_json_has_them() -> None:
    record = replace(DONE, metrics={"loss": math.nan, "K": np.float64(2.0)}, stopped=(Stop(0, 1, math.nan, -math.inf),))
    back = Record.from_json(record.to_json())
    assert math.isnan(back.metrics["loss"])
    assert back.metrics["K"] == 2.0
    assert math.isnan(back.stopped[0].t)
    assert back.stopped[0].loss == -math.inf


def test_unknown_entries_of_this_schema_are_kept() -> None:
    text = json.dumps(json.loads(DONE.to_json()) | {"note": {"by": "another program"}})
    record = Record.from_json(text)
    assert record.extra == {"note": {"by": "another program"}}
    assert json.loads(record.to_json())["note"] == {"by": "another program"}
    assert json.loads(replace(DONE, extra={"status": "mine"}).to_json())["status"] == "done"


def test_a_newer_schema_asks_for_an_update(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(json.loads(DONE.to_json()) | {"schema": SCHEMA + 1}))
    with pytest.raises(BadInput) as caught:
        read_record(path)
    assert str(path) in str(caught.value)
    assert "newer featscale" in str(caught.value)
    assert "delete" not in str(caught.value)


def test_a_record_of_the_first_schema_is_migrated() -> None:
    """As featscale 0.1 wrote it: no `processes`, and the trouble with W&B among the entries of other writers."""
    first = json.loads(DONE.to_json()) | {"schema": 1, "wandb_problem": "log: ConnectionError", "note": 1}
    del first["processes"], first["mirror_problem"]
    record = Record.from_json(json.dumps(first))
    assert record == replace(DONE, mirror_problem="log: ConnectionError", processes=1, extra={"note": 1})
    assert json.loads(record.to_json())["schema"] == SCHEMA
    untroubled = Record.from_json(json.dumps({key: first[key] for key in first if key != "wandb_problem"}))
    assert untroubled.mirror_problem is None


def test_every_older_schema_has_a_way_to_this_one() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA))


def test_a_record_cut_anywhere_is_refused() -> None:
    whole = DONE.to_json().encode()
    for length in range(len(whole) - 2):
        with pytest.raises(BadInput):
            Record.from_json(whole[:length])


@pytest.mark.parametrize(
    "content",
    [
        DONE.to_json().encode()[:300],
        b"",
        b"[1, 2]",
        b"null",
        b"{}",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"schema": "1"}',
        DONE.to_json().replace('"done"', '"finished"').encode(),
    ],
)
def test_a_damaged_record_is_one_line_with_file_and_advice(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_record(path)
    assert str(path) in str(caught.value)
    assert "delete the file" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_that_is_not_there_or_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "nothing.json", tmp_path / "folder"):
        with pytest.raises(BadInput, match="a readable file"):
            read_record(path)


@pytest.mark.parametrize("name", REQUIRED)
def test_an_entry_that_is_missing_is_named(name: str) -> None:
    entries = json.loads(DONE.to_json())
    del entries[name]
    with pytest.raises(BadInput, match=f"^{name}: missing"):
        Record.from_json(json.dumps(entries))


@given(st.sampled_from(sorted(json.loads(DIVERGED.to_json()))), JSON)
def test_any_value_of_any_entry_is_read_or_refused(name: str, value: Any) -> None:
    text = json.dumps(json.loads(DIVERGED.to_json()) | {name: value})
    record, refused = None, ""
    try:
        record = Record.from_json(text)
    except BadInput as error:
        refused = str(error)
    assert "\n" not in refused
    assert record is None or Record.from_json(record.to_json()).status == record.status


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"status": "running"}, "status"),
        ({"step": 1.5}, "step"),
        ({"seeds": [0]}, "seeds"),
        ({"cause": 3}, "cause"),
        ({"metrics": None}, "metrics"),
    ],
)
def test_a_record_of_wrong_kinds_is_not_made(change: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        replace(DONE, **change)
    assert caught.value.field == field


def test_a_stop_of_wrong_kinds_is_not_made() -> None:
    with pytest.raises(BadInput, match=r"^stopped\.step: "):
        Stop(0, 1.5, 1.0)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"^stopped\.K: "):
        Stop(0, 1, 1.0, None, "1")  # type: ignore[arg-type]
