"""The one way bad input is reported, everywhere: field, value, and what is allowed."""

from __future__ import annotations


class BadInput(ValueError):
    """A value outside its allowed range.

    Its text is one line, ``field: value: what is allowed``; the command line prints it after ``error:`` and exits 2.

    >>> raise BadInput("alpha", 0.5, "a number > 1")
    Traceback (most recent call last):
        ...
    featscale.errors.BadInput: alpha: 0.5: a number > 1
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        text = " ".join(str(value).split())
        super().__init__(f"{field}: {text if len(text) <= 200 else text[:197] + '...'}: {' '.join(allowed.split())}")


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise :class:`BadInput` unless `condition` holds; write the condition so that NaN makes it false."""
    if not condition:
        raise BadInput(field, value, allowed)
