"""Manifests: what is added is kept whole, once, by whoever adds it; damage is named."""

from __future__ import annotations

import json
import math
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from featscale.errors import BadInput
from featscale.runs.manifest import MANIFEST, Manifest, Planned, manifests, plan


def run_of(N: int, name: str = "width", **how: Any) -> Planned:
    science = {"model": {"N": N}, "data": {"B": math.inf}, "optimizer": {"eta0": 1.0}}
    return Planned(
        {"name": name, **science, "trainer": {"threads": 1}, "retry_failed": True, **how}, science, (f"model.N={N}",)
    )


def test_a_run_comes_back_as_it_was_added(tmp_path: Path) -> None:
    run = run_of(4)
    manifest = Manifest(tmp_path / "width")
    assert manifest.add([run]) == 1
    (back,) = manifest.read()
    assert back == run
    assert back.config["data"]["B"] == math.inf
    assert isinstance(back.config["optimizer"]["eta0"], float)
    assert manifest.directory(back).path == tmp_path / "width" / run.hash
    json.loads(manifest.path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_adding_twice_changes_no_byte_and_a_new_way_of_doing_it_is_taken(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "width")
    assert manifest.add(run_of(N) for N in (1, 2, 3)) == 3
    before = manifest.path.stat()
    assert manifest.add(run_of(N) for N in (3, 1)) == 0
    assert (manifest.path.stat().st_mtime_ns, manifest.path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert manifest.add([run_of(2, trainer={"threads": 2}), run_of(4)]) == 1
    assert [run.config["model"]["N"] for run in manifest.read()] == [1, 2, 3, 4]
    assert manifest.read()[1].config["trainer"] == {"threads": 2}


def test_a_run_can_be_taken_off(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "width")
    manifest.add(run_of(N) for N in (1, 2))
    manifest.remove({run_of(1).hash, "0" * 12})
    assert [run.config["model"]["N"] for run in manifest.read()] == [2]


def test_plan_puts_each_name_into_its_own_folder_and_forgets_to_retry(tmp_path: Path) -> None:
    found = plan(tmp_path, [run_of(1), run_of(2, "depth"), run_of(3)])
    assert [(manifest.folder.name, len(manifest.read())) for manifest in found] == [("width", 2), ("depth", 1)]
    assert found[0].read()[0].config["retry_failed"] is False
    assert [manifest.folder.name for manifest in manifests(tmp_path)] == ["depth", "width"]
    assert manifests(tmp_path / "width") == [found[0]]


def test_a_name_that_leads_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="^name: "):
        plan(tmp_path / "runs", [run_of(1, "../elsewhere")])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="^DIR: "):
        manifests(tmp_path)
    with pytest.raises(BadInput, match="^manifest: .*No such file"):
        Manifest(tmp_path).read()


def test_a_manifest_cut_in_half_is_named_and_mended_by_adding(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = Manifest(tmp_path / "width")
    manifest.add(run_of(N) for N in (1, 2, 3))
    whole = manifest.path.read_bytes()
    manifest.path.write_bytes(whole[: len(whole) - 20])
    with pytest.raises(BadInput, match=r"^manifest: .*line 3: .*mends it$"):
        manifest.read()
    assert manifest.add(run_of(N) for N in (1, 2, 3)) == 1
    assert "line 3, is left out" in caplog.text
    assert manifest.path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hash": "0" * 12}, "manifest.hash"),
        ({"science": 3}, "manifest.science"),
        ({"config": None}, "manifest.config"),
    ],
)
def test_a_line_that_contradicts_itself_is_refused(change: dict[str, Any], field: str) -> None:
    entries = json.loads(run_of(1).to_json()) | change
    with pytest.raises(BadInput, match=f"^{field}: "):
        Planned.from_json(json.dumps(entries))
    with pytest.raises(BadInput, match="^manifest: "):
        Planned.from_json("[1]")


def add_some(folder: Path, first: int) -> None:
    for N in range(first, first + 20):
        Manifest(folder).add([run_of(N), run_of(1000)])


def test_many_who_add_at_once_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(add_some, [tmp_path] * 3, [0, 10, 20]))
    assert sorted(run.config["model"]["N"] for run in Manifest(tmp_path).read()) == [*range(40), 1000]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".manifest.lock", MANIFEST]
