"""What `train.py -m …` asks for: Hydra's own expansion of the overrides, each run resolved, without composing each anew."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from featscale.cli import compose
from featscale.errors import BadInput
from featscale.runs.manifest import Planned

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@dataclass(frozen=True)
class Expansion:
    """A sweep before it is planned.

    jobs, the overrides of each run. hydra, Hydra's own configuration: `sweeper` and `launcher` as plain containers.
    """

    jobs: tuple[tuple[str, ...], ...]
    hydra: dict[str, Any]

    @property
    def basic(self) -> bool:
        """Whether Hydra's basic sweeper and launcher are asked for, whose work the manifest and its workers do."""
        targets = (self.hydra["sweeper"]["_target_"], self.hydra["launcher"]["_target_"])
        return targets == (BASIC_SWEEPER, BASIC_LAUNCHER)


class Composer:
    """Configurations from overrides, equal to what Hydra composes (tests/cli/test_expand.py), at a tenth of the time.

    Hydra reads and merges the groups for every run of a sweep, twice, 0.1 s each; here each choice of groups is composed once, and values
    are put into it, and taken out again, in the way in which Hydra does it. A context manager.
    """

    def __init__(self, conf: Path) -> None:
        self.conf = conf
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        self._groups: dict[str, bool] = {}
        self._overrides: dict[str, Any] = {}

    def __enter__(self) -> Composer:
        """Set Hydra up."""
        from hydra import initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.override_parser.overrides_parser import OverridesParser

        compose.register()
        self._context = initialize_config_dir(str(self.conf.resolve()), version_base=compose.VERSION_BASE)
        self._context.__enter__()
        self._loader = GlobalHydra.instance().config_loader()
        self._parser = OverridesParser.create(config_loader=self._loader)
        return self

    def __exit__(self, *error: object) -> None:
        """Leave Hydra as it was."""
        self._context.__exit__(*error)

    def expand(self, overrides: Sequence[str]) -> Expansion:
        """The runs of `overrides`, by Hydra's sweeper: those of the command line after those of hydra.sweeper.params.

        Raises: BadInput in one line for anything Hydra refuses.
        """
        from hydra import compose as hydra_compose
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        try:
            fixed = [
                str(one.input_line)
                for one in self._parser.parse_overrides(list(overrides))
                if not one.is_sweep_override()
            ]
            cfg = hydra_compose("train", fixed, return_hydra_config=True).hydra
            swept = [f"{key}={value}" for key, value in (cfg.sweeper.get("params") or {}).items()]
            parsed = self._parser.parse_overrides([*swept, *overrides])
            (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        except Exception as error:
            raise compose.bad_config(error) or BadInput("overrides", " ".join(overrides), str(error)) from error
        engine = {key: OmegaConf.to_container(cfg[key]) for key in ("sweeper", "launcher")}
        return Expansion(tuple(tuple(job) for job in jobs), engine)

    @contextmanager
    def config(self, job: Sequence[str]) -> Iterator[DictConfig]:
        """The configuration of one run, not yet resolved, good inside the context. Raises: whatever Hydra raises for bad overrides."""
        from hydra._internal.config_loader_impl import ConfigLoaderImpl

        parsed = [self._parsed(line) for line in job]
        values = [one for one in parsed if self._is_value(one)]
        cfg = self._base(tuple(str(one.input_line) for one in parsed if one not in values))
        # Copying all of it for every run would take longer than all else here: only what changes is copied, and put back.
        content = cfg.__dict__["_content"]
        before = {key: content[key] for one in values if (key := re.split(r"[.[]", one.key_or_group)[0]) in content}
        content.update(copy.deepcopy(before))
        try:
            ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
            yield cfg
        finally:
            content.update(before)

    def planned(self, job: Sequence[str]) -> Planned:
        """One run, resolved and checked. Raises: BadInput in one line."""
        try:
            with self.config(job) as cfg:
                config = compose.check(cfg)
        except Exception as error:
            raise compose.bad_config(error) or BadInput("overrides", " ".join(job), str(error)) from error
        return Planned(config, compose.science(config), tuple(job))

    def _base(self, groups: tuple[str, ...]) -> DictConfig:
        """What Hydra composes for choices of groups, with the folders that the environment names looked up once."""
        from hydra import compose as hydra_compose

        if groups not in self._bases:
            self._bases[groups] = hydra_compose("train", list(groups))
            OmegaConf.resolve(self._bases[groups].paths)
        return self._bases[groups]

    def _parsed(self, line: str) -> Any:
        if line not in self._overrides:
            (self._overrides[line],) = self._parser.parse_overrides([line])
        return self._overrides[line]

    def _is_value(self, override: Any) -> bool:
        """Whether an override changes a value that is there, and no choice of a group, nor Hydra itself."""
        plain = not (override.is_add() or override.is_force_add() or override.is_delete() or override.package)
        key = override.key_or_group
        if key not in self._groups:
            self._groups[key] = bool(self._loader.get_group_options(key))
        return bool(plain and not key.startswith("hydra") and not self._groups[key])


def runs(conf: Path, overrides: Sequence[str]) -> Iterator[Planned | BadInput]:
    """The runs that `train.py -m OVERRIDES` asks for; in the place of one that is bad input, what is bad about it.

    Raises: BadInput where the overrides as a whole are.
    """
    with Composer(conf) as composer:
        for job in composer.expand(overrides).jobs:
            try:
                yield composer.planned(job)
            except BadInput as error:
                yield error
