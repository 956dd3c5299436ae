"""`python -m app.cli`, for environments without the installed command."""

from app.cli import main

main(prog_name="tableside")
