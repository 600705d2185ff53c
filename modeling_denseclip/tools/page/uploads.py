# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What visitors of the page send: which requests reach Gradio, and the folder in which their files lie for a while."""

import asyncio
import atexit
import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..files.received import MAXIMUM_BYTES


try:
    import fcntl
except ImportError:  # Windows, where what a page that was killed has left is removed once it is old
    fcntl = None


MAXIMUM_QUESTION = 2**18  # bytes of a request that is no upload
MAXIMUM_WAITING = 32  # photographs in the queue, and uploads at a time; the model takes one photograph after the other
MAXIMUM_KEPT = 200  # uploads that lie on the disk
UPLOAD_SECONDS = 600  # that a request may take to arrive
TEMPORARY_SECONDS = 3600  # that an upload is kept
# What the page itself asks of Gradio, which has other routes: some compute at once, past the queue, and some write.
ROUTES = {
    "POST": re.compile("queue/join|upload|cancel|reset/?"),
    "GET": re.compile(
        "info/?|app_id/?|user/?|token/?|login_check/?|startup-events|theme.css|queue/(data|status)|upload_progress"
        "|heartbeat/.*|file=.*"
    ),
}
FORM_BYTES = 2**16  # around the file in an upload
DRAINED_BYTES = 2**26  # of a request that is too large, so that its sender gets to read the answer
UPLOADS = "denseclip-web-"  # what folders for uploads are called

_locks: dict[str, int] = {}


def make_upload_folder() -> Path:
    """
    A folder of this process alone for what visitors upload, which Gradio is told by its environment variable. It is
    removed when the process ends, and with it what pages left that were killed.
    """
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    if str(parent) in _locks:  # another page of this process has made it
        return parent
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=UPLOADS, dir=parent)).resolve()
        lock = _lock(folder)
        if folder.exists():  # another page that starts may have removed it before it was locked
            break
    owner = folder.stat().st_uid
    for other in parent.glob(f"{UPLOADS}*"):
        if not other.is_symlink() and other.is_dir() and other.lstat().st_uid == owner:
            if (is_free := _lock(other)) is not None:
                shutil.rmtree(other, ignore_errors=True)
                os.close(is_free)
            else:
                tidy(other)
    if lock is not None:
        _locks[str(folder)] = lock
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _lock(folder: Path) -> int | None:
    """
    Lock a folder until the process ends, in whatever way; `None` where another one has, or there are no locks.

    The folder itself is locked: of a lock file in it, as `filelock` makes one, the folder would be made again where
    another page has just removed it.
    """
    if fcntl is None:
        return None
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def tidy(folder: Path) -> None:
    """Remove uploads that are old, and the oldest of those that are too many; also of visitors who broke off."""
    files = []
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                files.append((path.stat().st_mtime, path))
        except OSError:  # it has just gone
            continue
    files.sort()
    for index, (written, path) in enumerate(files):
        if time.time() - written > TEMPORARY_SECONDS or index < len(files) - MAXIMUM_KEPT:
            path.unlink(missing_ok=True)
            if path.parent != folder and not any(path.parent.iterdir()):
                path.parent.rmdir()


def forget_unread(sessions: Mapping[str, asyncio.Queue]) -> None:
    """Drop answers that nobody fetches, the oldest first, if there are many. Gradio would keep all of them."""
    unread = [messages for messages in sessions.values() if not messages.empty()]
    for messages in unread[:-MAXIMUM_WAITING]:
        while not messages.empty():
            messages.get_nowait()


class Gate:
    """
    A middleware that lets those requests reach Gradio, the `app`, which its own page makes, if they are not too large
    or too slow. Gradio puts what is sent to it into the folder `uploads`.
    """

    def __init__(self, app: Callable, uploads: Path):
        self.app = app
        self.uploads = uploads
        self.running = 0  # uploads

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        _, is_gradio, route = scope["path"].partition("/gradio_api/")
        # Other paths than Gradio's API are the page and its files, which are read alone.
        allowed = ROUTES[method].fullmatch(route) if method in ROUTES and is_gradio else method == "GET"
        if not allowed and method != "OPTIONS":  # a browser asks by it whether a request is allowed
            return await PlainTextResponse("The page takes no such request.", 404)(scope, receive, send)
        if method != "POST":
            return await self.app(scope, receive, send)
        is_upload = route == "upload"
        if is_upload and self.running >= MAXIMUM_WAITING:
            return await PlainTextResponse("Too many uploads at a time: try again.", 503)(scope, receive, send)
        limit = MAXIMUM_BYTES + FORM_BYTES if is_upload else MAXIMUM_QUESTION
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        received, has_begun, end = 0, False, time.monotonic() + UPLOAD_SECONDS

        async def receive_some() -> dict[str, Any]:
            nonlocal received
            message = await asyncio.wait_for(receive(), max(end - time.monotonic(), 0))
            received += len(message.get("body", b""))
            if received > limit:
                raise _TooLargeError
            return message

        async def send_noted(message: dict[str, Any]) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        self.running += is_upload
        try:
            if is_upload:
                tidy(self.uploads)
            else:
                forget_unread(scope["app"].get_blocks()._queue.pending_messages_per_session)
            if int(stated) > limit:
                raise _TooLargeError
            await self.app(scope, receive_some, send_noted)
        except _TooLargeError:
            if not has_begun:
                limit, more = DRAINED_BYTES, True
                with contextlib.suppress(_TooLargeError, asyncio.TimeoutError):
                    while more:
                        more = (await receive_some()).get("more_body", False)
                await PlainTextResponse("This request is too large.", 413)(scope, receive, send)
        except asyncio.TimeoutError:
            if not has_begun:
                await PlainTextResponse("This request takes too long to arrive.", 408)(scope, receive, send)
        finally:
            self.running -= is_upload


class _TooLargeError(Exception):
    pass
