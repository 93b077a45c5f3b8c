"""What every `featscale` command shares: one JSON object or a readable text, and the exit codes of the contract."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from featscale.errors import BadInput

# typer carries its own copy of click; this is the class of all its command-line errors, whichever copy it uses.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def plain(value: Any) -> Any:
    """`value` as JSON types: arrays become lists, paths strings, NaN and infinities null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def emit(result: Mapping[str, Any], as_json: bool, render: Callable[[Mapping[str, Any]], None] | None = None) -> None:
    """Print `result`: as JSON, by the command's own `render`, or as aligned `name value` lines."""
    if as_json:
        sys.stdout.write(json.dumps(plain(result), allow_nan=False) + "\n")
    elif render is not None:
        render(result)
    else:
        width = max((len(key) for key in result), default=0)
        for key, value in result.items():
            sys.stdout.write(f"{key:<{width}}  {readable(value)}\n")


def readable(value: Any) -> str:
    """`value` for a person: six significant digits, sequences in one line."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple, np.ndarray)):
        return " ".join(readable(item) for item in value)
    return "none" if value is None else str(value)


def numbers(text: str, field: str, allowed: str = "comma-separated numbers") -> np.ndarray:
    """The numbers of ``"1,10,1e2"`` as a float64 array of shape (n,); ``BadInput`` names `field` otherwise."""
    try:
        values = np.array([float(part) for part in text.split(",")], dtype=np.float64)
    except ValueError:
        raise BadInput(field, text, allowed) from None
    if np.isnan(values).any():
        raise BadInput(field, text, allowed)
    return values


def run(app: Callable[..., Any], arguments: list[str] | None = None) -> int:
    """Call the typer `app`; return 0, 1 or 2 as the contract says, with one ``error:`` line and no traceback for 2."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except BadInput as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except UsageError as error:
        sys.stderr.write(f"error: {usage_line(error)}\n")
        return 2
    except typer.Exit as error:
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("error: interrupted\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"error: {error.filename or 'file'}: {error.strerror or error}\n")
        return 1
    return code if isinstance(code, int) else 0


def usage_line(error: Any) -> str:
    """A click usage error as ``field: value: what is allowed``."""
    field = getattr(error, "param", None)
    name = field.opts[0] if field is not None and getattr(field, "opts", None) else getattr(error, "param_hint", None)
    message = " ".join(error.format_message().split())
    return f"{name or 'arguments'}: {message}"
