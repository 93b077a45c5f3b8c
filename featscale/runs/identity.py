"""What names a run: the hash of its science configuration, and the folder made of a name and that hash."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featscale.errors import BadInput, require

HASH_DIGITS = 12
_HASH = re.compile(rf"[0-9a-f]{{{HASH_DIGITS}}}")
MAX_NAME = 100
NAME = (
    f"a folder name of 1 to {MAX_NAME} printable characters without / or \\, that starts with no dot and has no space "
    "at its ends"
)


def config_hash(science: Mapping[str, Any]) -> str:
    r"""The name of a configuration: the first 12 hex digits of the SHA-256 of its canonical JSON.

    Equal values have equal hashes however they are written: the order of keys, 1 or 1.0, a tuple or a list, a numpy scalar or a Python
    number make no difference. Two of n different configurations share a hash with probability :math:`n^2 / 2^{49}`, 2e-7 for 10,000.
    Source: derived; test tests/runs/test_identity.py, with golden values.
    Arguments: science, nested mappings with text keys, lists, numbers, texts, booleans, None.
    Returns: 12 hex digits, the same in every process and on every machine.
    Raises: BadInput that names the entry: NaN, or a value of another kind.
    """
    text = json.dumps(canonical(science), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def canonical(value: Any, field: str = "science") -> Any:
    """`value` as JSON has it, equal for equal values: whole floats become integers, infinities the texts 'inf' and '-inf'.

    Raises: BadInput, with the dotted path of the entry in it, for NaN and for what is no plain value.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (np.generic, np.ndarray)):
        # A long double's item() is itself again; every other numpy scalar has a Python value.
        item = value.tolist()
        return canonical(float(item) if isinstance(item, np.floating) else item, field)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        require(not math.isnan(value), field, value, "a number, not NaN")
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return int(value) if value.is_integer() else float(value)
    if isinstance(value, Mapping):
        for key in value:
            require(isinstance(key, str), field, repr(key), "a text as the key of every entry")
        return {str(key): canonical(item, f"{field}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item, f"{field}[{i}]") for i, item in enumerate(value)]
    raise BadInput(field, f"{type(value).__name__} {value!r}", "a number, text, boolean, None, list or mapping")


def flattened(science: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries under dotted keys.

    >>> flattened({"model": {"N": 4, "depth": 2}, "seed": 0})
    {'model.N': 4, 'model.depth': 2, 'seed': 0}
    """
    leaves: dict[str, Any] = {}
    for key, value in science.items():
        if isinstance(value, dict):
            leaves.update(flattened(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def is_hash(text: str) -> bool:
    """Whether `text` looks like the name of a run directory: 12 hex digits."""
    return _HASH.fullmatch(text) is not None


def run_path(root: str | Path, name: str, config: str) -> Path:
    """The folder root/name/hash of a run, with the parts checked so that it lies inside `root`.

    Arguments: root, the folder of all runs. name, one folder name. config, the hash of the configuration.
    Raises: BadInput for a name that is empty, hidden, longer than 100 characters, or holds separators or control characters.
    """
    printable = isinstance(name, str) and name.isprintable() and name == name.strip()
    fits = printable and 0 < len(name) <= MAX_NAME and len(name.encode()) <= 255
    require(fits and not name.startswith(".") and not set(name) & set("/\\"), "name", repr(name), NAME)
    require(isinstance(config, str) and is_hash(config), "hash", repr(config), f"{HASH_DIGITS} hex digits")
    return Path(root) / name / config
