"""Train one run, or a sweep of runs with -m: compose, instantiate, fit, record.

    python train.py                                          the solvable model at its defaults
    python train.py model.N=512 parameterization.gamma=0.1   other values
    python train.py -m seed=0,1,2 parameterization.gamma=0,1 a sweep; finished runs are skipped
    python train.py -m experiment=demo_gamma                 a prepared sweep (conf/experiment)
    python train.py -m seed=0,1,2 dry_run=true               what it would do and cost
    python train.py --cfg job                                what would run

A run is the folder runs/<name>/<hash>, named by what it computes: asked for again it is skipped when finished and resumed when not. A sweep
is the manifest runs/<name>/manifest.jsonl: -m fills it and trains it, `featscale worker runs/<name>` helps, from any machine (docs/sweeps.md).
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from featscale.cli import compose, dry, sweep
from featscale.errors import require
from featscale.runs.directory import RunDirectory, should_run
from featscale.runs.identity import config_hash, run_path
from featscale.runs.manifest import Planned
from featscale.training.orders import PARTS
from featscale.training.place import alone
from featscale.training.preemption import Preempted

CONF = Path(__file__).resolve().parent / "conf"
outcomes: list[str] = []


def train(cfg: DictConfig) -> str:
    """Run what `cfg` asks for unless that is done; returns how the run ended."""
    config = compose.check(cfg)
    require(cfg.launcher.engine == "local", "launcher", cfg.launcher.engine, "local for a single run; a sweep has -m")
    science = compose.science(config)
    if cfg.dry_run:
        dry.run([Planned(config, science)])
        return "not run"
    directory = RunDirectory(run_path(cfg.paths.runs, cfg.name, config_hash(science)))
    if not should_run(directory, cfg.retry_failed).trains:
        return directory.status()
    # Lightning takes seconds to import: only where there is something to train.
    from featscale.training.run import Request, execute

    parts = {group: compose.part(config[group]) for group in PARTS}
    return execute(directory, Request(config, science, sys.argv[1:]), **parts)


@hydra.main(config_path=str(CONF), config_name="train", version_base=compose.VERSION_BASE)
def job(cfg: DictConfig) -> None:
    """One job; bad input ends it with one line and lets the rest of a sweep go on."""
    outcomes.append(compose.in_one_line(train, cfg))
    print(f"{cfg.name}: {outcomes[-1]}", file=sys.stderr)


def main() -> int:
    """Run the jobs; returns 0, 1 when a run failed, 2 for bad input, 128 + the signal when asked to stop."""
    compose.register()
    if compose.in_one_line(alone, "train.py") == "bad input":
        return 2
    try:
        if (overrides := sweep.asked(sys.argv[1:])) is not None:
            return sweep.run(CONF, overrides)
        outcomes.append(compose.in_one_line(job) or "done")
    except Preempted as stop:
        print(f"stopped by {stop}; the same command goes on from there", file=sys.stderr)
        return stop.exit_code
    return 2 if "bad input" in outcomes else int(bool({"failed", "no space"} & set(outcomes)))


if __name__ == "__main__":
    sys.exit(main())
