"""Training on a part of more than 1 GB: the process stays below 1 GB, all of torch and every mapped page counted."""

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


@pytest.mark.slow
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"])
def test_a_part_of_a_gigabyte_trains_in_less_than_one(tmp_path, compression):
    folder = tmp_path / "data" / "cifar5m"
    folder.mkdir(parents=True)
    write_part(folder / "part0.npz", IMAGES, compression)
    write_part(folder / "part5.npz", 1000)
    options = ["data=cifar5m", "model=mlp", "model.N=4", "data.B=250", "precision=float32", "logger=none"]
    options += ["data.train_parts=[0]", "data.test_size=1000", f"steps={IMAGES // 250}", "optimizer.eta0=0.01"]
    options += [
        f"paths.data={tmp_path / 'data'}",
        f"paths.cache={tmp_path / 'cache'}",
        f"paths.runs={tmp_path / 'runs'}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in [name for name in environment if name.startswith("SLURM")]:
        del environment[name]
    command = [sys.executable, "-c", PROGRAM, *options, "trainer.accelerator=cpu", "trainer.threads=1"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] == 0, done.stderr
    (record,) = (tmp_path / "runs").rglob("record.json")
    assert json.loads(record.read_text())["step"] == IMAGES // 250
    assert (folder / "part0.npz").stat().st_size > GB or compression == zipfile.ZIP_DEFLATED
    print(f"peak resident memory {result['peak'] / GB:.3f} GB")
    assert result["peak"] < GB
