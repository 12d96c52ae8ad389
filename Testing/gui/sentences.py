"""Every sentence that a user can read, listed once, for reading through.

python Testing/gui/sentences.py              panels (translatable strings and the form), engine (errors, warnings, help)
python Testing/gui/sentences.py panels       one of the two
"""

from __future__ import annotations

import ast
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PANELS = (
    "SAMConvexRegistration/SAMConvexRegistration.py",
    "SAMConvexRegistration/SAMConvexLib",
    "SAMConvexRegistration/SAMConvexRegistrationLib",
    "SAMConvexRegistration/Resources/UI",
    "SAMLandmark/SAMLandmark.py",
    "SAMLandmark/SAMLandmarkLib",
    "SAMLandmark/Resources/UI",
)
ENGINE = ("SAMConvexRegistration/samconvex",)
TRANSLATED = {"_", "translate"}
# What the engine says: errors, warnings and notes, what the command line explains.
SPOKEN_CALLS = {
    "InputError",
    "ResourceError",
    "Reason",
    "Limit",
    "FeatureChoice",
    "Choice",
    "append",
    "tell",
    "warn",
    "print",
    "add_argument",
    "add_parser",
    "add_argument_group",
}
SPOKEN_NAMES = {"EXPLANATION", "description"}


def files(places: tuple[str, ...], ending: str) -> Iterator[Path]:
    """Files below the places, in the order of their names."""
    for place in places:
        path = REPOSITORY / place
        yield from sorted(path.rglob(f"*{ending}")) if path.is_dir() else [path] if path.suffix == ending else []


def text_of(node: ast.AST) -> str | None:
    """A string as it stands in the source, what is filled in as {name}; None for what is no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else "{" + ast.unparse(v.value) + "}" for v in node.values]
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [text_of(node.left), text_of(node.right)]
        return None if None in parts else "".join(map(str, parts))
    return None


def called(node: ast.Call) -> str:
    """The last part of the name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def translated(path: Path) -> Iterator[tuple[int, str]]:
    """(line, sentence) of everything that goes through the translation."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and called(node) in TRANSLATED and node.args:
            text = text_of(node.args[-1])
            if text:
                yield node.lineno, text


def of_form(path: Path) -> Iterator[tuple[int, str]]:
    """(0, sentence) of a form's texts that are translated."""
    root = ElementTree.parse(path).getroot()
    untranslated = {entry for group in root.iter("stringlist") if group.get("notr") == "true" for entry in group}
    for entry in root.iter("string"):
        if entry.text and entry.get("notr") != "true" and entry not in untranslated:
            yield 0, entry.text


def spoken(path: Path) -> Iterator[tuple[int, str]]:
    """(line, sentence) of what the engine says; words without a blank are options and keys, not sentences."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    candidates: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node) in SPOKEN_CALLS:
            candidates += [*node.args, *(word.value for word in node.keywords)]
        elif isinstance(node, ast.Assign) and any(getattr(t, "id", "") in SPOKEN_NAMES for t in node.targets):
            candidates.append(node.value)
        elif isinstance(node, (ast.List, ast.Tuple, ast.Return, ast.AugAssign)):
            candidates += getattr(node, "elts", []) or [getattr(node, "value", None)]
        elif isinstance(node, ast.IfExp):
            candidates += [node.body, node.orelse]
    for node in filter(None, candidates):
        text = text_of(node)
        if text and " " in text.strip() and any(c.isalpha() for c in text):
            yield node.lineno, text


def sentences(kinds: tuple[str, ...] = ("panels", "engine")) -> dict[str, str]:
    """{sentence: where it stands first}, in the order of the files."""
    found: dict[str, str] = {}

    def take(path: Path, said: Iterator[tuple[int, str]]) -> None:
        for line, text in sorted(said):
            found.setdefault(" ".join(text.split()), f"{path.relative_to(REPOSITORY)}:{line}")

    if "panels" in kinds:
        for path in files(PANELS, ".py"):
            take(path, translated(path))
        for path in files(PANELS, ".ui"):
            take(path, of_form(path))
    if "engine" in kinds:
        for path in files(ENGINE, ".py"):
            take(path, spoken(path))
    return found


if __name__ == "__main__":
    place = None
    for sentence, where in sentences(tuple(sys.argv[1:]) or ("panels", "engine")).items():
        if where.split(":")[0] != place:
            place = where.split(":")[0]
            print(f"\n{place}")
        print(f"  {sentence}")
