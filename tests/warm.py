"""
Commands in processes that begin with PyTorch imported. A new process takes three seconds for it, which is most of what
a command on tiny data takes.

Beside the tests runs a process that has imported PyTorch and what else comes with Transformers, but nothing of Hugging
Face, whose libraries read the environment when they are imported. For each command it forks one, which has the words,
the folder, the environment and the standard streams of who asks for it, and ends as any process of Python does. Where
commands follow one another in the same environment, as on a page, it forks one that imports these libraries too, in
that environment, and forks the commands from then on. Who asks is a process too, this file run as a script: it stands
for Python in `subprocess.run([*warm_python(), "-m", ...])` and in scripts for a shell, waits for the command, and ends
with its exit status. It passes signals on, to one process; for those to a session, `WarmProcess` tells its id.

What is about imports, about what happens meanwhile, or about how Python takes itself apart in the end (a second of it,
which is left out unless a `WarmProcess` asks for it) needs `sys.executable`.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
import warnings
from pathlib import Path


# They start no thread but jemalloc's, which is prepared for forks.
IMPORTS = (
    *("torch._dynamo", "torch.distributed.tensor", "torch.onnx", "sympy", "pandas", "pyarrow.dataset"),
    *("pyarrow.parquet", "PIL.Image", "PIL.ImageDraw", "cv2", "fsspec", "jinja2", "psutil", "regex", "requests"),
    *("safetensors.torch", "scipy.stats", "tqdm.auto", "yaml"),
)
# Which read the environment. What the commands use of Transformers is loaded when it is asked for.
IMPORTS_OF_AN_ENVIRONMENT = (
    *("accelerate", "datasets", "evaluate", "transformers.trainer", "transformers.pipelines"),
    *("transformers.models.clip.modeling_clip", "transformers.models.clip.tokenization_clip"),
)
REQUEST_BYTES = 1 << 17


# --------------------------------------------------------------------------------------------- the process that forks


def import_all(names):
    for name in names:
        with contextlib.suppress(ImportError):
            __import__(name)
    gc.freeze()  # what the forks need not look through, nor copy for that


def fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on, for the thread of jemalloc
        return os.fork()


def bury_children():
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(address: str):
    """Fork for each connection, until the tests are over; in the fork that runs a command, return when it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C of the tests is none of ours
    import_all(IMPORTS)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        environment, channel = None, None  # of the last command, and to who imported everything in it
        while True:
            if sys.stdin in select.select([server, sys.stdin], [], [])[0]:
                return
            connection, _ = server.accept()
            _, streams, *_ = socket.recv_fds(connection, 1, 3)
            with connection.makefile() as lines:
                request = json.loads(lines.readline())
            bury_children()
            # Scripts on the command line ask for little, or look at what is imported.
            is_command = "-c" not in request["words"][:2]
            asked = {name: value for name, value in request["environment"].items() if name != "_"}  # which bash sets
            if is_command and asked != environment:
                environment = asked
                if channel is not None:
                    channel.close()
                    channel = None
            elif is_command and channel is None:
                channel, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                if fork() == 0:
                    channel.close()
                    for opened in (server, connection):
                        opened.close()
                    for stream in streams:
                        os.close(stream)
                    return serve_environment(other_end, environment)
                other_end.close()
            if is_command and channel is not None:
                socket.send_fds(channel, [json.dumps(request).encode()], [connection.fileno(), *streams])
            elif fork() == 0:
                break
            connection.close()
            for stream in streams:
                os.close(stream)
    return run_request(connection, streams, request)


def serve_environment(channel: socket.socket, environment: dict[str, str]):
    """As `serve`, of the commands in one environment, until there is one in another."""
    os.environ.clear()
    os.environ.update(environment)
    import_all(IMPORTS_OF_AN_ENVIRONMENT)
    while True:
        content, descriptors, *_ = socket.recv_fds(channel, REQUEST_BYTES, 4)
        if not content:
            os._exit(0)
        bury_children()
        if fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    channel.close()
    connection, *streams = descriptors
    return run_request(socket.socket(fileno=connection), streams, json.loads(content))


def run_request(connection: socket.socket, streams: list[int], request: dict):
    """Run a command in a fork of this process, which waits for it and tells how it ended."""
    child = os.fork()
    if child == 0:
        if request["is_whole"]:
            os.setsid()
        with contextlib.suppress(BrokenPipeError):  # nobody waits any more
            connection.sendall(f"{os.getpid()}\n".encode())
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        run_words = run if request["is_whole"] else run_to_exit_handlers
        return run_words(request["words"], request["folder"], request["environment"])
    for number, stream in enumerate(streams):
        os.close(number)
        os.close(stream)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{status}\n".encode())
    os._exit(0)


def run(words: list[str], folder: str, environment: dict[str, str]):
    """What `python WORD ...` does: with -m, -c, or the name of a file, each perhaps behind -I or -u."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    options = [word for word in words[:1] if word in ("-I", "-u")]
    kind, *arguments = words[len(options) :]
    if "-I" not in options:
        first = {"-m": folder, "-c": ""}.get(kind, os.path.dirname(kind))
        sys.path[:0] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    main = sys.modules["__main__"] = sys.modules["__mp_main__"] = types.ModuleType("__main__")
    if kind == "-c":
        sys.argv = ["-c", *arguments[1:]]
        exec(compile(arguments[0], "<string>", "exec"), vars(main))
    elif kind == "-m":
        sys.argv = arguments
        runpy._run_module_as_main(arguments[0])  # as Python itself does it
    else:
        sys.argv = [kind, *arguments]
        runpy.run_path(kind, run_name="__main__")


def run_to_exit_handlers(*words):
    """`run`, and what Python does then until it takes itself apart."""
    status = 0
    try:
        run(*words)
    except SystemExit as end:
        status = end.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)


# ---------------------------------------------------------------------------------------------------- those who ask


@functools.cache
def _start() -> tuple[Path, object, object]:
    """Start the process that forks; returns its address, and what it ends with."""
    from torch import get_num_threads

    folder = tempfile.TemporaryDirectory(prefix="warm-", ignore_cleanup_errors=True)
    address = Path(folder.name) / "socket"
    server = subprocess.Popen(
        [sys.executable, "-I", __file__, "--serve", str(address)],
        env={**os.environ, "OMP_NUM_THREADS": str(get_num_threads())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout.readline() == b"ready\n", "The process that imports PyTorch has died."
    return address, folder, server


def warm_python() -> list[str]:
    """The first words of a command, in the place of `sys.executable`."""
    if not hasattr(os, "fork"):
        return [sys.executable]
    return [sys.executable, "-I", "-S", __file__, str(_start()[0])]


def write_scripts(folder: Path, names=("python", "denseclip")) -> Path:
    """Put scripts of these names into a folder, which a shell finds if its PATH begins with it."""
    folder.mkdir()
    for name in names:
        words = warm_python() + ([] if name == "python" else [str(Path(sys.executable).parent / name)])
        (folder / name).write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


class WarmProcess:
    """
    A command that runs: what `subprocess.Popen` returns, as far as tests use it.

    Args:
        words (`list[str]`): those behind `python`.
        folder, environment (`str`, `dict[str, str]`): as `cwd` and `env` of `Popen`.
        streams (`list[int]`): standard input, output and error, by their numbers.
        is_whole (`bool`, *optional*, defaults to `True`): whether it gets a session of its own and, in the end, takes
            itself apart.
        address (`str`, *optional*): of the process that forks.
    """

    def __init__(
        self,
        words: list[str],
        folder: str,
        environment: dict[str, str],
        streams: list[int],
        is_whole: bool = True,
        address: str | None = None,
    ):
        self.returncode = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address or str(_start()[0]))
        socket.send_fds(self._connection, [b"."], streams)
        request = {"words": words, "folder": folder, "environment": environment, "is_whole": is_whole}
        self._connection.sendall(f"{json.dumps(request)}\n".encode())
        self._answers = self._connection.makefile()
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        address, *words = sys.argv[1:]
        process = WarmProcess(words, os.getcwd(), dict(os.environ), [0, 1, 2], is_whole=False, address=address)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(process.pid, number))
        status = process.wait()
        if status < 0:
            with contextlib.suppress(OSError):  # SIGKILL is as it is
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        sys.exit(status)
