"""Training on CIFAR-5M from the door to the record: a part of more than 1 GB in less than 1 GB of memory, and the real sample."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
GB = 10**9
IMAGES = GB // 3072 + 1
# The peak of all resident memory of the process (VmHWM): private, shared libraries and mapped file pages alike. The
# maximum that wait4 reports would count the memory of the process that forked it.
PROGRAM = """
import json, sys
sys.argv[0] = "train.py"
import train
code = train.main()
fields = dict(line.split(":") for line in open("/proc/self/status").read().splitlines())
print(json.dumps({"code": code, "peak": int(fields["VmHWM"].split()[0]) * 1024}))
"""


def write_part(path, n, compression=zipfile.ZIP_STORED):
    """A part of n images whose first pixel is the label, written in blocks."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, n)
    block = rng.integers(0, 256, (4096, 32, 32, 3), dtype=np.uint8)
    if compression != zipfile.ZIP_STORED:
        block[:] = block[:1]
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        with archive.open("X.npy", "w", force_zip64=True) as file:
            header = {"shape": (n, 32, 32, 3), "fortran_order": False, "descr": "|u1"}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, n, 4096):
                part = block[: n - start].copy()
                part[:, 0, 0, 0] = labels[start : start + 4096]
                file.write(part.data)
        with archive.open("Y.npy", "w") as file:
            np.lib.format.write_array(file, labels)


def trained(tmp_path, *options):
    """The exit code, peak memory and stderr of `train.py` with these options, and the record it left, if any."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    places = [f"paths.cache={tmp_path / 'cache'}", f"paths.runs={tmp_path / 'runs'}"]
    fixed = ["logger=none", "precision=float32", "trainer.accelerator=cpu", "trainer.threads=1"]
    command = [sys.executable, "-c", PROGRAM, *fixed, *places, *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("record.json")]
    return result["code"], result["peak"], done.stderr, records[0] if records else None


@pytest.mark.slow
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"])
def test_a_part_of_a_gigabyte_trains_in_less_than_one(tmp_path, compression):
    folder = tmp_path / "data" / "cifar5m"
    folder.mkdir(parents=True)
    write_part(folder / "part0.npz", IMAGES, compression)
    write_part(folder / "part5.npz", 1000)
    options = ["data=cifar5m", "model=mlp", "model.N=4", "data.B=250", f"paths.data={tmp_path / 'data'}"]
    options += ["data.train_parts=[0]", "data.test_size=1000", f"steps={IMAGES // 250}", "optimizer.eta0=0.01"]
    code, peak, stderr, record = trained(tmp_path, *options)
    assert code == 0, stderr
    assert record["step"] == IMAGES // 250
    assert (folder / "part0.npz").stat().st_size > GB or compression == zipfile.ZIP_DEFLATED
    print(f"peak resident memory {peak / GB:.3f} GB")
    assert peak < GB


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_the_real_sample_trains(tmp_path, data_folder, loss):
    options = ["experiment=cifar5m_cnn", f"loss={loss}", "model.N=8", f"paths.data={data_folder}"]
    code, _, stderr, record = trained(tmp_path, *options)
    assert code == 0, stderr
    start = {"mse": 0.1, "cross_entropy": float(np.log(10))}[loss]
    assert record["science"]["loss"]["_target_"].endswith({"mse": "MSE", "cross_entropy": "CrossEntropy"}[loss])
    assert record["metrics"]["loss"] < start
    assert record["metrics"]["accuracy"] > 0.15


@pytest.mark.slow
def test_what_is_missing_is_one_line_at_the_door(tmp_path):
    code, _, stderr, record = trained(tmp_path, "experiment=cifar5m_cnn", f"paths.data={tmp_path}")
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert (code, record) == (2, None)
    assert lines == [f"error: paths.data: {tmp_path}: a folder that holds sample_part0.npz"]
