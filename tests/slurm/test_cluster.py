"""The test cluster itself: without a real Slurm the other tests of this folder would show nothing."""

import cluster as module
import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_job_runs_on_a_real_slurm_and_is_preempted_by_a_better_partition(cluster, tmp_path):
    """Every processor is taken in `spare`; a job in `urgent` sends one back to the queue, and both end."""
    out = f"--output={tmp_path}/%x"
    script = f"echo $SLURM_RESTART_COUNT >> {tmp_path}/starts; sleep 6"
    cluster.call("sbatch", f"--cpus-per-task={cluster.cpus}", "--job-name=low", out, f"--wrap={script}")
    module.wait_for((tmp_path / "starts").exists, 20, "the first job")
    cluster.call("sbatch", "--partition=urgent", "--job-name=high", out, "--wrap=hostname")
    cluster.wait_until_idle(60)
    assert (tmp_path / "high").read_text().strip()
    assert (tmp_path / "starts").read_text().split() == ["1"], "an empty line for the first start, then restart 1"
