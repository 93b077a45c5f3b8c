"""Downloads that end: with the files, or within seconds with the reason."""

from __future__ import annotations

import contextlib
import http.client
import queue
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from featscale.errors import BadInput

PATIENCE = 10.0
"""Seconds that a connection, or a pause in a download, may take."""


def download(urls: Sequence[str], target: Path, fetch: Callable[[Path], None]) -> str:
    """Have `fetch` download into a temporary folder in `target`; returns what came of it, in a few words.

    Arguments: urls, servers of which one must answer before anything is tried. target, a folder, made if need be.
    fetch, a function of the temporary folder that moves what is whole into `target`; what it prints goes to stderr.
    Raises: BadInput if `target` cannot be written.
    """
    if not _reachable(urls, PATIENCE):
        return f"no server answered within {PATIENCE:g} s"
    try:
        target.mkdir(parents=True, exist_ok=True)
        partial = tempfile.TemporaryDirectory(dir=target, prefix="download-")
    except OSError as error:
        raise BadInput("paths.cache", target, f"a folder that can be written ({error.strerror})") from error
    with partial as folder, _socket_timeout(PATIENCE), contextlib.redirect_stdout(sys.stderr):
        try:
            fetch(Path(folder))
        except (RuntimeError, OSError, http.client.HTTPException) as error:
            return str(error)
    return "downloaded"


def _reachable(urls: Sequence[str], seconds: float) -> bool:
    """Whether any of `urls` answers within `seconds`; asked side by side, in threads, since a name lookup has no time limit."""
    answers: queue.Queue[bool] = queue.Queue()

    def ask(url: str) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            answers.put(True)
        except urllib.error.HTTPError as error:
            error.close()
            answers.put(True)
        except (OSError, ValueError, http.client.HTTPException):
            answers.put(False)

    for url in urls:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return any(answers.get(timeout=seconds) for _ in urls)
    return False


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
