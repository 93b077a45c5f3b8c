"""Signals that ask a process to stop: noted, obeyed at the next step boundary, and told to the scheduler by the exit code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

# SIGTERM: Slurm, Kubernetes and most others before they kill. SIGUSR2: submitit before a time limit. SIGINT: Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


class Preempted(KeyboardInterrupt):
    """Training stopped because it was asked to, after saving; the same command goes on from there.

    No Exception, so that nothing takes it for a failure of the run. exit_code: 128 + the signal, which no scheduler takes for success.
    """

    def __init__(self, signum: int, where: str = "") -> None:
        self.signum, self.exit_code = signum, 128 + signum
        super().__init__(f"{signal.Signals(signum).name}{where and ': '}{where}")


class Preemption:
    """Notes the signals in SIGNALS instead of dying of them; a context manager.

    A second SIGINT raises KeyboardInterrupt at once. Only the main thread can take signals; in another one nothing is noted. Lightning puts
    its own handler in the place of SIGTERM's when a fit begins: call :meth:`install` again after that.

    Arguments: orphaned, asked as well: whether to stop (as by SIGTERM) because whoever started this process is gone.
    """

    def __init__(self, orphaned: Callable[[], bool] = lambda: False) -> None:
        self.orphaned = orphaned
        self.signum: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals."""
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give them back to whom they belonged."""
        del kind, error, trace
        if threading.current_thread() is threading.main_thread():
            for signum, handler in self.previous.items():
                signal.signal(signum, handler if handler is not None else signal.SIG_DFL)

    def install(self) -> None:
        """Take the signals, again if somebody else took them."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in SIGNALS:
            handler = signal.signal(signum, self._note)
            self.previous.setdefault(signum, handler)

    def asked(self) -> bool:
        """Whether to stop."""
        if self.signum is None and self.orphaned():
            self.signum = signal.SIGTERM
        return self.signum is not None

    def check(self, where: str = "") -> None:
        """Raise :class:`Preempted` if asked to stop."""
        if self.asked():
            assert self.signum is not None
            raise Preempted(self.signum, where)

    def forward(self) -> None:
        """Call the handler that was there before for the signal that came, if it is one: a launcher's, such as submitit's, that requeues."""
        handler = self.previous.get(self.signum) if self.signum is not None else None
        if callable(handler) and handler is not signal.default_int_handler:
            handler(self.signum, None)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = self.signum or signum
