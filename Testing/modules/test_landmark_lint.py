"""Lists, names, strings and imports of the landmark module; the same rules as for its sister."""

from __future__ import annotations

import ast
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from modules.test_registration_lint import CONNECTED, CONTAINERS, FILE_SCOPE_IMPORTS, calls, listed, widgets

MODULE = "SAMLandmark"
PANELS = {"checklist", "landmarkpanel", "livepanel", "trackingpanel"}
# Bridged by hand: a list of check marks has no connector in Slicer.
UNBOUND = {"queryVolumes"}


@pytest.fixture(scope="module")
def folder(repository):
    return repository / MODULE


@pytest.fixture(scope="module")
def python_files(folder):
    return [folder / f"{MODULE}.py", *sorted((folder / f"{MODULE}Lib").glob("*.py"))]


@pytest.fixture(scope="module")
def form(folder):
    return ElementTree.parse(folder / "Resources" / "UI" / f"{MODULE}.ui").getroot()


def test_cmake_packages_every_file_and_the_module_is_built(folder, repository):
    text = (folder / "CMakeLists.txt").read_text(encoding="utf-8")
    scripts = {f"{MODULE}.py"} | {f"{MODULE}Lib/{path.name}" for path in (folder / f"{MODULE}Lib").glob("*.py")}
    assert listed(text, "MODULE_PYTHON_SCRIPTS", MODULE) == scripts
    resources = {path.relative_to(folder).as_posix() for path in (folder / "Resources").rglob("*") if path.is_file()}
    assert listed(text, "MODULE_PYTHON_RESOURCES", MODULE) == resources
    assert f"add_subdirectory({MODULE})" in (repository / "CMakeLists.txt").read_text(encoding="utf-8")


def test_every_widget_that_python_uses_is_in_the_form(python_files, form):
    names = set(widgets(form))
    for path in python_files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                owner = node.value
                if getattr(owner, "attr", getattr(owner, "id", "")) == "ui":
                    assert node.attr in names, f"{path.name}:{node.lineno}: ui.{node.attr}"


def test_every_parameter_is_bound_to_one_control(form, folder):
    tree = ast.parse((folder / f"{MODULE}Lib" / "parameters.py").read_text(encoding="utf-8"))
    parameters = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == f"{MODULE}ParameterNode")
    fields = {n.target.id for n in parameters.body if isinstance(n, ast.AnnAssign)}
    bound = {}
    for name, widget in widgets(form).items():
        for prop in widget.findall("property"):
            if prop.get("name") == "SlicerParameterName":
                bound[prop.find("string").text] = name
                assert widget.get("class") in CONNECTED, name
    assert set(bound) == fields - UNBOUND


def test_node_selectors_follow_the_scene_and_controls_explain_themselves(form):
    connected = {c.find("receiver").text for c in form.iter("connection") if "setMRMLScene" in c.find("slot").text}
    every = widgets(form)
    assert connected == {name for name, widget in every.items() if widget.get("class").startswith("qMRMLNode")}
    for name, widget in every.items():
        if widget.get("class") not in CONTAINERS:
            tips = [p.find("string").text for p in widget.findall("property") if p.get("name") == "toolTip"]
            assert tips and tips[0], name
    used = {w.get("class") for w in form.iter("widget") if not w.get("class").startswith("Q")}
    assert used == {c.find("class").text for c in form.iter("customwidget")}
    buddies = [
        p.find("cstring").text for w in every.values() for p in w.findall("property") if p.get("name") == "buddy"
    ]
    assert buddies and set(buddies) <= set(every)


def test_imports_at_file_scope_are_light_and_qt_stays_in_the_panels(python_files):
    for path in python_files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            roots = []
            if isinstance(node, ast.Import):
                roots = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots = [node.module.split(".")[0]]
            for root in roots:
                allowed = FILE_SCOPE_IMPORTS | {"SAMLandmarkLib"} | sys.stdlib_module_names
                assert root in allowed, f"{path.name}: {root}"
        imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert ("qt" in imported) <= (path.stem in PANELS), path.name


def test_the_module_does_not_load_torch(repository):
    code = (
        f"import sys; sys.path[:0] = [{str(repository / 'Testing')!r}, {str(repository / 'SAMConvexRegistration')!r}]\n"
        "from harness import start, load_module\n"
        "start()\n"
        f"module = load_module({str(repository / MODULE / (MODULE + '.py'))!r})\n"
        "module.widgetRepresentation().enter()\n"
        "assert 'torch' not in sys.modules and 'samconvex' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]


def test_translated_strings_are_literals_with_named_placeholders(python_files):
    count = 0
    for path in python_files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in calls(tree, "_", "translate"):
            text = call.args[-1]
            assert isinstance(text, ast.Constant) and isinstance(text.value, str), f"{path.name}:{call.lineno}"
            assert all(field.isidentifier() for field in re.findall(r"{([^}:]*)[^}]*}", text.value)), text.value
            count += 1
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                if node.targets[0].attr in ("text", "toolTip", "title") and isinstance(node.value, ast.Constant):
                    assert not node.value.value, f"{path.name}:{node.lineno}"
    assert count > 100


# Words of the engine, and what a reader calls it.
WORDS = {
    "query": "target scan",
    "queries": "target scans",
    "director": "folder",
    "cycle": "return error",
    "vote": "templates agreeing",
    "undo": "back to found position",
    "not in this scan": "not found, or outside this scan",
}


def test_no_sentence_needs_a_word_of_the_engine(python_files, form):
    sentences = [(s.text or "", "the form") for s in form.iter("string") if s.get("notr") != "true"]
    for path in python_files:
        called = calls(ast.parse(path.read_text(encoding="utf-8")), "_", "translate")
        sentences += [(call.args[-1].value, f"{path.name}:{call.lineno}") for call in called]
    assert len(sentences) > 250
    for text, place in sentences:
        # What stands in braces is filled in and never read.
        shown = re.sub(r"{[^}]*}", "", text).lower()
        for word, better in WORDS.items():
            assert word not in shown, f"{place}: {text!r}: say {better!r}"


def test_the_icon_has_the_size_the_index_recommends(folder):
    header = (folder / "Resources" / "Icons" / f"{MODULE}.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", header[16:24]) == (128, 128)


def test_every_proof_in_the_feature_table_is_a_test(repository):
    folders = {"m": repository / "Testing" / "modules", "g": repository / "Testing" / "gui"}
    proofs = 0
    for line in (repository / "docs" / "features-landmarks.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != 5 or cells[2] != "yes":
            continue
        text = None
        for place, name, test in re.findall(r"\b([mg]) (\w+)|`(\w+)`", cells[3]):
            if name:
                text = (folders[place] / f"test_landmark_{name}.py").read_text(encoding="utf-8")
            else:
                assert re.search(rf"def test_\w*{test}", text), f"{cells[1]}: {test}"
            proofs += 1
        assert text is not None, cells[1]
    assert proofs > 50
