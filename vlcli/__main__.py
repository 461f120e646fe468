"""The entry: `vlcli` and `python -m vlcli`, which accelerate launches.

The imports of the command line take longer than a short command's work. Until they are done a signal has nothing
to clean up: it says its line and leaves.
"""

import os
import signal
from typing import Any


def _leave(number: int, _: Any) -> None:
    os.write(2, b"vlcli: interrupted\n" if number == signal.SIGINT else b"vlcli: terminated\n")
    os._exit(128 + number)


def run() -> None:
    """The console script."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from vlcli import cli

    cli.run()


if __name__ == "__main__":
    run()
