"""A real Slurm of one node, started as root without systemd: own munge, own ports, own folders, gone when closed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "munged", "setpriv")
# Two partitions on the same node: what comes into `urgent` sends what runs in `spare` back to the queue.
# cred_expire is how long Slurm waits before a job that was sent back may start again, in seconds (5 is the least).
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
CompleteWait=0
MaxArraySize={max_array_size}
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=spare Nodes={host} Default=YES PriorityTier=1 MaxTime=INFINITE PreemptMode=REQUEUE GraceTime=0 State=UP
PartitionName=grace Nodes={host} PriorityTier=1 MaxTime=INFINITE PreemptMode=REQUEUE GraceTime=10 State=UP
PartitionName=urgent Nodes={host} PriorityTier=10 MaxTime=INFINITE PreemptMode=OFF State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if absent:
        return f"no {', '.join(absent)} (Debian: slurmctld slurmd slurm-client munge)"
    return None if os.geteuid() == 0 else "a Slurm of one node is started as root"


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Look until `condition` holds. Raises: TimeoutError that says what was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.2)


@dataclass
class Cluster:
    """A running one-node cluster; a context manager.

    Arguments: cpus, how many processors the node says it has. max_array_size, Slurm's MaxArraySize: array indices stay below it.
    """

    cpus: int = 4
    max_array_size: int = 2
    folder: Path = field(init=False)

    def __enter__(self) -> Cluster:
        # Munge insists on folders that only root and itself can write to.
        self.folder = Path(tempfile.mkdtemp(prefix="featscale-slurm-", dir="/run"))
        self.folder.chmod(0o755)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("slurmd", "slurmctld", "munge/munged"):
            pid = self.folder / f"{name}.pid"
            if pid.exists():
                with contextlib.suppress(ProcessLookupError, ValueError):
                    number = int(pid.read_text())
                    os.kill(number, signal.SIGTERM)
                    wait_for(lambda number=number: not os.path.exists(f"/proc/{number}"), 20, f"end of {name}")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which Slurm's commands talk to this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def call(self, *command: str) -> str:
        """What a Slurm command prints."""
        return subprocess.run(
            command, env=os.environ | self.environment, check=True, capture_output=True, text=True, timeout=30
        ).stdout

    def jobs(self, *options: str) -> list[str]:
        """Lines "id state" of the jobs in the queue, one for each task of an array."""
        return self.call("squeue", "--noheader", "--array", "--format=%i %T", *options).splitlines()

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until the queue is empty."""
        try:
            wait_for(lambda: not self.jobs(), seconds, "an empty queue")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; in it: {self.jobs()}; {self.logs()}") from None

    def logs(self) -> str:
        """The last lines of the daemons' logs."""
        files = [self.folder / "slurmctld.log", self.folder / "slurmd.log"]
        return "\n".join(file.read_text()[-2000:] for file in files if file.exists())

    def _start(self) -> None:
        controller, node = free_ports(2)
        host = socket.gethostname().split(".")[0]
        values = {"folder": self.folder, "host": host, "controller_port": controller, "node_port": node}
        text = CONF.format(**values, cpus=self.cpus, max_array_size=self.max_array_size)
        (self.folder / "slurm.conf").write_text(text)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self._start_munge()
        self.call("slurmctld")
        self.call("slurmd", "-N", host)
        try:
            wait_for(lambda: "idle" in self.call("sinfo", "--noheader", "--format=%t"), 30, "an idle node")
        except (TimeoutError, subprocess.CalledProcessError) as error:
            raise RuntimeError(f"{error}\n{self.logs()}") from None

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        munge.mkdir()
        key = munge / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for path in (munge, key):
            shutil.chown(path, "munge", "munge")
        options = [f"--key-file={key}", f"--socket={munge}/socket", f"--pid-file={munge}/munged.pid"]
        files = [f"--log-file={munge}/log", f"--seed-file={munge}/seed", "--num-threads=2"]
        self.call("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", *options, *files)
