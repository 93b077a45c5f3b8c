"""The only place that knows how Hydra is set up: the schema, where conf/ is, and Hydra's errors in one line."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from featscale.errors import BadInput, require
from featscale.runs.claims import RunBusy
from featscale.runs.identity import flattened
from featscale.training.orders import PRECISION_NAMES
from featscale.training.place import FILL, HOW

VERSION_BASE = "1.3"
# What names a run; the rest says how and where it is done.
SCIENCE = (
    "model",
    "data",
    "parameterization",
    "optimizer",
    "loss",
    "seed",
    "seeds",
    "steps",
    "rows_per_decade",
    "precision",
)
# Entries of the data group that say where files are and change nothing of what is in them.
PLACES = ("folder", "cache", "download", "verify")
# Errors of a disk that time or a hand can cure.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
AGAIN = "the same command goes on when there is space"


@dataclass
class RunSchema:
    """The root of the configuration: a key that is not here is refused, wherever it comes from."""

    name: str = MISSING
    seed: int = MISSING
    seeds: int = MISSING
    steps: int = MISSING
    rows_per_decade: int = MISSING
    precision: str = MISSING
    retry_failed: bool = False
    dry_run: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    parameterization: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    launcher: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, Any] = field(default_factory=dict)


def register() -> None:
    """Make the schema known to Hydra, and its errors exceptions rather than printed pages."""
    ConfigStore.instance().store(name="schema", node=RunSchema)
    os.environ["HYDRA_FULL_ERROR"] = "1"


def compose(conf: Path, overrides: Sequence[str]) -> DictConfig:
    """The configuration that `train.py` would run with these overrides, checked.

    Raises: BadInput in one line for anything Hydra refuses.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    register()
    with initialize_config_dir(str(conf.resolve()), version_base=VERSION_BASE):
        try:
            cfg = hydra_compose("train", list(overrides))
        except Exception as error:
            raise bad_config(error) or BadInput("configuration", " ".join(overrides), str(error)) from error
    check(cfg)
    return cfg


def check(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain containers.

    Raises: BadInput for keys that no part of the program reads, missing values, and references that do not resolve.
    """
    try:
        values = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise bad_config(error) or error from error
    assert isinstance(values, dict)
    plain = {str(key): value for key, value in values.items()}
    known = {entry.name for entry in fields(RunSchema)}
    for key in plain:
        require(key in known, key, "not a key of the configuration", KEYS)
    for key in sorted(known):
        require(plain.get(key) not in (None, "???"), key, "missing", "a value")
    require(
        plain["precision"] in PRECISION_NAMES, "precision", plain["precision"], "one of " + ", ".join(PRECISION_NAMES)
    )
    several = (
        f"1: on several devices a run is trained by launcher=slurm launcher.ranks=2, or by `{FILL}` and then `{HOW}`"
    )
    require(plain["trainer"]["devices"] == 1, "trainer.devices", plain["trainer"]["devices"], several)
    for key, least in (("seeds", 1), ("seed", 0), ("steps", 1), ("rows_per_decade", 1)):
        require(plain[key] >= least, key, plain[key], f"an integer >= {least}")
    return plain


def science(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that names the run, as plain containers without paths.

    Raises: BadInput that names an entry that is NaN, which equals nothing and so names nothing.
    """
    whole = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    assert isinstance(whole, Mapping)
    kept = {key: whole[key] for key in SCIENCE}
    kept["data"] = {key: value for key, value in kept["data"].items() if key not in PLACES}
    for key, value in flattened(kept).items():
        require(value == value, key, value, "a number")
    return kept


def part(config: Mapping[str, Any]) -> Any:
    """What a group of the resolved configuration describes: the object of its `_target_`, a class that :mod:`featscale.cli.targets` allows.

    Raises: BadInput in one line.
    """
    from hydra.utils import instantiate

    from featscale.cli import targets
    from featscale.cli.train import door

    # The data modules lie beside the door, and lose nothing by being found twice.
    if (beside := str(door().parent)) not in sys.path:
        sys.path.insert(0, beside)
    targets.check(config)
    try:
        return instantiate(config)
    except Exception as error:
        raise bad_config(error) or error from error


def in_one_line(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns; bad input, a run in other hands and files that cannot be written become one line on stderr.

    Returns: the function's result, or "bad input", "running" where another process trains the run, or "no space" where a disk is full or
    broken.
    """
    try:
        return function(*arguments)
    except Exception as error:
        # Hydra's own errors can be OSErrors too, so they are asked first.
        line = bad_config(error)
        if line is None and isinstance(error, RunBusy):
            sys.stderr.write(f"{error.filename}: {error.strerror}\n")
            return "running"
        if line is None and isinstance(error, OSError):
            reason = error.strerror or " ".join(str(error).split())
            if error.errno in FULL:
                sys.stderr.write(f"error: {error.filename or 'disk'}: {reason}; nothing saved is lost: {AGAIN}\n")
                return "no space"
            line = BadInput("paths.runs", error.filename or "folder", f"a folder that can be written ({reason})")
        if line is None:
            raise
        sys.stderr.write(f"error: {line}\n")
        return "bad input"


def bad_config(error: BaseException) -> BadInput | None:
    """One line for an error of Hydra, OmegaConf or an instantiated class; None for an error of another kind."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, BadInput):
            return cause
    texts = [" ".join(str(cause).split()) for cause in causes]
    for text in texts:
        for pattern, line in PATTERNS:
            if found := re.search(pattern, text):
                return BadInput(*line(found))
    if type(error).__module__.split(".")[0] in ("hydra", "omegaconf", "antlr4", "yaml"):
        return BadInput("configuration", type(error).__name__, next(filter(None, texts), "what Hydra accepts"))
    return None


KEYS = "a key that `python train.py --cfg job` shows"
# Texts of Hydra and OmegaConf, and the (field, value, what is allowed) each becomes.
PATTERNS: tuple[tuple[str, Callable[[re.Match[str]], tuple[str, str, str]]], ...] = (
    (
        r"Could not find '([^']+)/([^'/]+)' Available options in '[^']+': (.*?)(?: Config search path.*)?$",
        lambda m: (m[1], m[2], "one of " + ", ".join(m[3].split())),
    ),
    (r"Could not find '([^']+)/([^'/]+)'", lambda m: (m[1], m[2], f"a file conf/{m[1]}/NAME.yaml")),
    (
        r"Value '(.*?)'(?: of type '\w+')? (?:could not be converted to|is not a valid) (\w+)",
        lambda m: ("value", m[1], f"a value of kind {m[2]}"),
    ),
    (
        r"Could not (?:override|append to config|delete from config)\W.*?'?([\w@/]+(?:\.\w+)*)'?",
        lambda m: (m[1], "unknown", KEYS),
    ),
    (r"Key '([^']+)' (?:is )?not in (?:'\w+'|struct)", lambda m: (m[1], "not a key of the configuration", KEYS)),
    (
        r"Error in call to target '([^']+)': \w+\([\"'](?:\S+\(\) )?(.*?)[\"']\)",
        lambda m: (m[1], m[2], "the arguments in its docstring"),
    ),
    (
        r"Interpolation key '([^']+)' not found full_key: ([\w.]+)",
        lambda m: (m[2], "${" + m[1] + "}", "a key that exists"),
    ),
    (r"Error merging override (.*?)=(.*)$", lambda m: (m[1], m[2], "a value of the kind the schema gives")),
)


def _causes(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
