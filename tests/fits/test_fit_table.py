"""Columns from csv, parquet and run directories; what is damaged is named."""

import numpy as np
import polars as pl
import pytest

from featscale.errors import BadInput
from featscale.fits.table import read_columns

FRAME = pl.DataFrame({"step": [0, 1, 2], "t": [0.0, 0.5, 1.0], "loss": [1, 2, 3], "seed": [0, 0, 4]})


def test_csv_parquet_and_run_directory_hold_the_same(tmp_path):
    FRAME.write_csv(tmp_path / "a[1].csv")
    FRAME.write_parquet(tmp_path / "curve.parquet")
    FRAME.write_parquet(tmp_path / "named.csv")
    for path in (tmp_path / "a[1].csv", tmp_path / "curve.parquet", tmp_path, str(tmp_path / "named.csv")):
        columns = read_columns(path, ["t", "loss"], ["seed"])
        assert list(columns) == ["t", "loss", "seed"]
        assert columns["loss"].dtype == np.float64
        assert columns["t"].tolist() == [0.0, 0.5, 1.0]
        assert columns["seed"].tolist() == [0, 0, 4]


def test_labels_may_be_missing_and_numbers_may_not(tmp_path):
    FRAME.select("t", "step").write_csv(tmp_path / "a.csv")
    assert list(read_columns(tmp_path / "a.csv", ["t"], ["seed"])) == ["t"]
    with pytest.raises(BadInput, match=r"^loss: .*: the columns there are: t, step$"):
        read_columns(tmp_path / "a.csv", ["t", "loss"])


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("t,loss\n1,2\n2,nan\n3,inf\n4,\n", [2, np.nan, np.inf, np.nan]),
        ("t, loss\r\n1, 2\r\n", [2]),
        ("\ufeffloss,t\n2,1\n", [2]),
        ("t,loss\n" + "1,2\n" * 20000 + "1,2.5e-3\n", [2] * 20000 + [0.0025]),
        ("t,loss\n1,2\n\n\n", [2]),
        ('"t","loss","note"\n1,2,"a, b"\n', [2]),
    ],
)
def test_ways_of_writing_csv(tmp_path, text, loss):
    (tmp_path / "a.csv").write_text(text, newline="")
    assert np.array_equal(read_columns(tmp_path / "a.csv", ["t", "loss"])["loss"], loss, equal_nan=True)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "FILE"),
        (b"\n", "FILE"),
        (b"t,loss\n", "FILE"),
        (b"t,loss\n1,2,3\n", "FILE"),
        (b"t,loss\n1,abc\n", "FILE"),
        (b"PAR1 and nothing more", "FILE"),
        (bytes(range(256)) * 9, "t"),
        (b"t;loss\n1;2\n", "t"),
        (b"t,loss,seed\n1,2,\n1,2,3\n", "seed"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, field):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_columns(tmp_path / "a.csv", ["t", "loss"], ["seed"])
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_damaged_parquet(tmp_path):
    file = tmp_path / "a.parquet"
    FRAME.select("loss", "t").write_parquet(file)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:4] + b"\xff" * 40 + whole[44:], b"t,loss\n1,2\n"):
        file.write_bytes(content)
        with pytest.raises(BadInput, match=r"^FILE: "):
            read_columns(file, ["t", "loss"])
    pl.DataFrame({"t": ["x"], "loss": [1.0]}).write_parquet(file)
    with pytest.raises(BadInput, match="conversion"):
        read_columns(file, ["t", "loss"])
    file.write_bytes(whole)
    assert read_columns(file, ["loss"])["loss"].tolist() == [1, 2, 3]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"^FILE: .*absent\.csv: .*No such file"):
        read_columns(tmp_path / "absent.csv", ["t"])
    with pytest.raises(BadInput, match=r"curve\.parquet: .*No such file"):
        read_columns(tmp_path, ["t"])
