"""`python -m vlcli`: what accelerate launches."""

from vlcli.cli import run

if __name__ == "__main__":
    run()
