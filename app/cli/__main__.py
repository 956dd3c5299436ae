"""Runs the command line as `python -m tableside.cli`, for environments where `tableside` is not installed."""

from tableside.cli import main

main(prog_name="tableside")
