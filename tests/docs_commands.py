"""Reads the commands of a docs page, and runs them in one shell as a reader would type them.

Fenced blocks that are run: `sh` (the block has to end without an error), `console` (lines after `$ ` are commands, the
others are what they print; `...` stands for any text) and `python` (a program of its own). Other languages are shown
and not run. `<!-- not run: reason -->` on the line before a fence leaves that block out.
"""

from __future__ import annotations

import re
import selectors
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RUN = ("sh", "console", "python")
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SKIP = re.compile(r"<!-- not run:(.*?)-->\n\Z")
_END = "end-of-command"
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Block:
    """One fenced block. skipped: the reason why it is not run, None where it is. line: of its fence, from 1."""

    language: str
    text: str
    line: int
    skipped: str | None


@dataclass(frozen=True)
class Step:
    """A command and what the page says that it prints: None where it says nothing."""

    command: str
    expected: str | None


def read_blocks(page: str) -> list[Block]:
    """The blocks of a page that could be run, in order."""
    found = []
    for fence in _FENCE.finditer(page):
        if fence[1] in RUN:
            skip = _SKIP.search(page[: fence.start()])
            line = page.count("\n", 0, fence.start()) + 1
            found.append(Block(fence[1], fence[2], line, skip[1].strip() if skip else None))
    return found


def read_steps(block: Block) -> list[Step]:
    """The commands of a block, each with the output that the page shows."""
    if block.language == "python":
        return [Step(f"python - <<'END_OF_PROGRAM'\n{block.text}END_OF_PROGRAM", None)]
    if block.language == "sh":
        return [Step(block.text, None)]
    steps: list[Step] = []
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        count = 1 + next((at for at, line in enumerate(lines[1:]) if not line.startswith("> ")), len(lines) - 1)
        command = "\n".join([lines[0], *(line[2:] for line in lines[1:count])])
        steps.append(Step(command, "\n".join(lines[count:])))
    return steps


def matches(expected: str, printed: str) -> bool:
    """Whether the text is what a page shows, where `...` stands for any text and spaces at line ends do not count."""
    pattern = ".*".join(re.escape(part) for part in _trimmed(expected).split("..."))
    return re.fullmatch(pattern, _trimmed(printed), re.DOTALL) is not None


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


class Shell:
    """One bash process that is given commands, so that `export` and variables last as they do in a terminal."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=folder, env=dict(environ), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.run("set -o pipefail")

    def run(self, command: str) -> tuple[int, str]:
        """Exit status and output, standard error included. Raises TimeoutError, and EOFError when the shell ends."""
        assert self._process.stdin is not None
        text = f"{{ {command.rstrip()}\n}} </dev/null\nprintf '\\n%s %s\\n' {_END} $?\n"
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> tuple[int, str]:
        assert self._process.stdout is not None
        output, give_up_at_s = b"", time.monotonic() + TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not (found := re.search(rb"\n%b (\d+)\n\Z" % _END.encode(), output)):
                if not selector.select(give_up_at_s - time.monotonic()):
                    raise TimeoutError(output.decode())
                block = self._process.stdout.read1(65536)  # type: ignore[attr-defined]
                if not block:
                    raise EOFError(output.decode())
                output += block
        return int(found[1]), output[: found.start()].decode()

    def close(self) -> None:
        """End the shell."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
