"""`vlcli` for test cases, warm: a process that has its libraries imported forks for each command line.

A case is a script of many short commands, whose imports take ten times as long as their work. The client (a script
that `install` writes, first in the case's PATH) hands over its arguments, environment, folder and three files. The
server has run nothing of polars or torch when it forks, so no thread of it can be holding a lock. `models`: what
needs torch is imported too, which every fork pays for with a little time.

    python tests/warm.py SOCKET [models]     serves; says "ready" on stdout
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from pathlib import Path

CLIENT = """#!{python} -IS
import os, signal, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    socket.send_fds(server, [b"+"], [0, 1, 2])
    lines = [os.getcwd(), str(len(sys.argv) - 1), *sys.argv[1:], *(f"{{k}}={{v}}" for k, v in os.environ.items())]
    server.sendall("\\0".join(lines).encode("utf-8", "surrogateescape"))
    server.shutdown(socket.SHUT_WR)
    code = int(server.recv(16) or b"1")
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def install(folder: Path, path: Path) -> None:
    """Write `folder/vlcli`, which talks to the server at the socket `path`."""
    script = folder / "vlcli"
    script.write_text(CLIENT.format(python=sys.executable, path=str(path)))
    script.chmod(0o755)


def serve(path: str, *, models: bool) -> None:
    """Returns only in a fork that has become a command."""
    import polars  # noqa: F401
    import pyarrow.compute
    import pyarrow.parquet
    import rich.table  # noqa: F401
    import zstandard  # noqa: F401
    from PIL import JpegImagePlugin, PngImagePlugin  # noqa: F401

    import vlcli.curation.filter
    import vlcli.curation.preset
    import vlcli.recipes
    import vlcli.shards.check
    import vlcli.shards.dataset
    from vlcli import cli

    if models:
        import vlcli.evaluation.tasks
        import vlcli.models.checkpoint
        import vlcli.training.pretraining  # noqa: F401

    for name in cli.COMMANDS:
        __import__(f"vlcli.commands.{name}")
    gc.collect()
    gc.freeze()  # else every fork looks through, and copies, all that stands here before it ends
    pyarrow.array([1])  # the first array looks for pandas, and imports it where it is installed
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks that answer
    while True:
        connection = listener.accept()[0]
        if os.fork() == 0:
            break
        connection.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    files = socket.recv_fds(connection, 1, 3)[1]
    said = b""
    while piece := connection.recv(1 << 16):
        said += piece
    if (command := os.fork()) != 0:
        for file in files:
            os.close(file)
        code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        connection.sendall(str(code).encode())
        os._exit(0)
    connection.close()
    _become(said.decode("utf-8", "surrogateescape").split("\0"), files)


def _become(said: list[str], files: list[int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    count = int(said[1])
    os.chdir(said[0])
    sys.argv = ["vlcli", *said[2 : 2 + count]]
    os.environ.clear()
    for entry in said[2 + count :]:
        name, _, value = entry.partition("=")
        os.environ[name] = value


if __name__ == "__main__":
    serve(sys.argv[1], models="models" in sys.argv[2:])
    from vlcli.__main__ import run

    run()
