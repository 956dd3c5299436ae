"""`python -m tableside.cli`, for environments without the installed command."""

from tableside.cli import main

main(prog_name="tableside")
