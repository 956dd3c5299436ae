"""Reads deploy/docker/Dockerfile, and runs its steps in folders where no docker is: one folder for each stage.

`python -m tests.host.dockerfile CONTEXT BASE TARGET`: BASE is a clean Debian root, TARGET a folder for the stages. Each
stage is a copy of BASE in which RUN is executed with chroot(1) and COPY copies what .dockerignore leaves. Prints the
folder of the last stage. It knows what the Dockerfile uses, and refuses what it does not know.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HARMLESS = ("EXPOSE", "VOLUME", "HEALTHCHECK", "STOPSIGNAL", "CMD", "ARG", "USER")
"""Instructions that change no file."""


@dataclass
class Stage:
    """One stage: its name, the image it begins with, and its instructions as pairs of word and text."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, word: str) -> str:
        """The text of the last instruction of this kind; empty without one."""
        return next((text for each, text in reversed(self.steps) if each == word), "")

    def words(self, word: str) -> list[str]:
        """The command of the last instruction of this kind (CMD or HEALTHCHECK), which has the form of a JSON list."""
        text = self.last(word)
        return [str(each) for each in json.loads(text[text.index("[") :])]

    def environment(self) -> dict[str, str]:
        """The variables of its ENV instructions."""
        texts = [text for word, text in self.steps if word == "ENV"]
        return dict(pair.split("=", 1) for text in texts for pair in shlex.split(text))


def read(text: str) -> list[Stage]:
    """The stages of a Dockerfile, with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(name, base))
        elif stages:
            stages[-1].steps.append((word, rest.strip()))
    return stages


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore leaves this path out: the last pattern that matches it, or a folder above, decides."""
    ignored = False
    for pattern in patterns:
        plain = pattern.removeprefix("!")
        parts = Path(path).parts
        names = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        if plain.startswith("**/"):
            found = any(fnmatch.fnmatchcase(part, plain[3:]) for part in parts)
        else:
            found = any(fnmatch.fnmatchcase(name, plain) for name in names)
        if found:
            ignored = not pattern.startswith("!")
    return ignored


def patterns(context: Path) -> list[str]:
    """The patterns of the context's .dockerignore."""
    lines = (context / ".dockerignore").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def files(context: Path) -> list[str]:
    """The files and links of the context that a build sees. Folders that it does not see are not read."""
    ignore = patterns(context)
    found = []
    for folder, folders, names in os.walk(context):
        here = Path(folder).relative_to(context)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = [
            name for name in folders if name not in links and not is_ignored((here / name).as_posix(), ignore)
        ]
        found += [path for name in (*names, *links) if not is_ignored(path := (here / name).as_posix(), ignore)]
    return sorted(found)


def _copy(source: Path, names: list[str], target: Path, owner: str) -> None:
    for name in names:
        to = target / name
        missing = [each for each in (to.parent, *to.parent.parents) if not each.exists()]
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, to, follow_symlinks=False)
        if owner:
            uid, gid = map(int, owner.split(":"))
            for each in (to, *missing):
                os.chown(each, uid, gid, follow_symlinks=False)
        else:
            os.chown(to, 0, 0, follow_symlinks=False)


def _copy_step(text: str, context: Path, roots: dict[str, Path], root: Path, folder: str) -> None:
    options = dict(re.findall(r"--(\w+)=(\S+)", text))
    source, target = (word for word in shlex.split(text) if not word.startswith("--"))
    to = root / str(Path(folder, target)).lstrip("/")
    if stage := options.get("from"):
        shutil.copytree(roots[stage] / source.lstrip("/"), to, symlinks=True, dirs_exist_ok=True)
        return
    visible = files(context)
    whole = "" if source == "." else f"{source}/"
    if source in visible:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(context / source, to)
        return
    names = [name.removeprefix(whole) for name in visible if name.startswith(whole)]
    if not names:
        raise SystemExit(f"COPY {text}: .dockerignore leaves nothing of it")
    _copy(context / source, names, to, options.get("chown", ""))


def build(context: Path, base: Path, target: Path, certificates: str = "") -> Path:
    """Run the steps of every stage. Return the root of the last one. Raises CalledProcessError if a step fails."""
    roots: dict[str, Path] = {}
    root = base
    for number, stage in enumerate(read((context / "deploy/docker/Dockerfile").read_text())):
        root = target / (stage.name or f"stage{number}")
        subprocess.run(["cp", "-a", str(base), str(root)], check=True)
        roots[stage.name] = root
        folder = "/"
        for word, text in stage.steps:
            sys.stderr.write(f"== {stage.name or 'last stage'}: {word} {text[:90]}\n")
            if word == "WORKDIR":
                folder = text
                (root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                _copy_step(text, context, roots, root, folder)
            elif word == "RUN":
                variables = [f"PIP_CERT={certificates}"] if certificates else []
                path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                command = f"cd {shlex.quote(folder)} && {text}"
                chroot = [
                    "chroot",
                    str(root),
                    "env",
                    "-i",
                    "HOME=/root",
                    "DEBIAN_FRONTEND=noninteractive",
                    path,
                    *variables,
                ]
                subprocess.run([*chroot, "sh", "-ec", command], check=True, stdout=sys.stderr)
            elif word not in (*HARMLESS, "ENV"):
                raise SystemExit(f"{word}: this reader does not know it")
    return root


if __name__ == "__main__":
    sys.stdout.write(f"{build(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])}\n")
