"""Train one run, or a sweep of runs with -m: compose, instantiate, fit, record.

    python train.py                                          the solvable model at its defaults
    python train.py model.N=512 parameterization.gamma=0.1   other values
    python train.py -m seed=0,1,2 parameterization.gamma=0,1 a sweep; finished runs are skipped
    python train.py -m experiment=demo_gamma                 a prepared sweep (conf/experiment)
    python train.py --cfg job                                what would run

A run is the folder runs/<name>/<hash>, named by what it computes: asked for again it is skipped when finished and resumed when not.
"""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from featscale.cli import compose
from featscale.runs.directory import RunDirectory, should_run
from featscale.runs.identity import config_hash, run_path

CONF = Path(__file__).resolve().parent / "conf"
PARTS = ("model", "data", "parameterization", "optimizer", "loss")
outcomes: list[str] = []


def train(cfg: DictConfig) -> str:
    """Run what `cfg` asks for unless that is done; returns how the run ended."""
    compose.check(cfg)
    science = compose.science(cfg)
    directory = RunDirectory(run_path(cfg.paths.runs, cfg.name, config_hash(science)))
    if not should_run(directory, cfg.retry_failed).trains:
        return directory.status()
    # Lightning takes seconds to import: only where there is something to train.
    from featscale.training.run import Request, execute

    sys.path.insert(0, str(CONF.parent))
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    parts = {group: hydra.utils.instantiate(cfg[group]) for group in PARTS}
    return execute(directory, Request(config, science, sys.argv[1:]), **parts)


@hydra.main(config_path=str(CONF), config_name="train", version_base=compose.VERSION_BASE)
def job(cfg: DictConfig) -> None:
    """One job; bad input ends it with one line and lets the rest of a sweep go on."""
    outcomes.append(compose.in_one_line(train, cfg))
    print(f"{cfg.name}: {outcomes[-1]}", file=sys.stderr)


def main() -> int:
    """Run the jobs; returns 0, 1 when a run failed, 2 for bad input."""
    compose.register()
    outcomes.append(compose.in_one_line(job) or "done")
    return 2 if "bad input" in outcomes else int("failed" in outcomes)


if __name__ == "__main__":
    sys.exit(main())
