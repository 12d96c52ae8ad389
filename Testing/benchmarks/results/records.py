"""Where a suite keeps its document, and the command lines that filled the folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

OPTIONS_LEFT_OUT = ("--resume", "--publish")


def folder_of(output: Path, suite: str) -> Path:
    """Where a suite keeps its document: the registration suite in the output folder itself, others one below."""
    return output if suite == "registration" else output / suite


def remember_command(folder: Path, suite: str, words: Sequence[str]) -> None:
    """Add a command line to the folder's list; folders are left out, other paths shortened to their names."""
    kept: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--output":
            rest = rest[1:]
        elif word not in OPTIONS_LEFT_OUT and not word.startswith("--output="):
            kept.append(Path(word).name if "/" in word or "\\" in word else word)
    line = " ".join(["samconvex benchmark", *([] if suite == "registration" else ["--suite", suite]), *kept])
    folder.mkdir(parents=True, exist_ok=True)
    lines = commands_of(folder)
    if line not in lines:
        (folder / "commands.txt").write_text("\n".join([*lines, line]) + "\n")


def commands_of(folder: Path) -> list[str]:
    """The command lines that filled a folder."""
    file = folder / "commands.txt"
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
