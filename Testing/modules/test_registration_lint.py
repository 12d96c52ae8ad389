"""What only shows up in a packaged extension or in another language: lists, names, strings, imports."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from harness.installation import listed

MODULE = "SAMConvexRegistration"
# Glue of both modules, in this module's folder.
SHARED = "SAMConvexLib"
# Widgets with a connector in Slicer's parameterNodeWrapper.
CONNECTED = {
    "QCheckBox",
    "QComboBox",
    "QSpinBox",
    "QDoubleSpinBox",
    "QLineEdit",
    "QTextEdit",
    "QSlider",
    "QLabel",
    "ctkSliderWidget",
    "ctkPathLineEdit",
    "ctkDirectoryButton",
    "qMRMLNodeComboBox",
}
# Of the repository and of pip's package, not of the extension.
NOT_INSTALLED = tuple(f"samconvex/{name}" for name in ("training/", "demo/")) + tuple(
    f"samconvex/cli/{name}.py" for name in ("train", "demo", "benchmark")
)
CONTAINERS = {"QWidget", "QTabWidget", "QLabel", "ctkCollapsibleButton", "ctkCollapsibleGroupBox", "qMRMLWidget"}
# Standard library aside; torch and the engine only run in their own process.
FILE_SCOPE_IMPORTS = {"slicer", "vtk", "qt", "ctk", "numpy", "SimpleITK", SHARED}
# The engine's part without torch, for use inside Slicer.
ENGINE_MODULES = {
    "samconvex.settings.features",
    "samconvex.settings.presets",
    "samconvex.memory",
    "samconvex.lesions.response",
    "samconvex.io.files",
    "samconvex.report.colors",
}


@pytest.fixture(scope="module")
def folder(repository):
    return repository / MODULE


@pytest.fixture(scope="module")
def python_files(folder):
    return [
        folder / f"{MODULE}.py",
        *(path for lib in (f"{MODULE}Lib", SHARED) for path in sorted((folder / lib).glob("*.py"))),
    ]


@pytest.fixture(scope="module")
def form(folder):
    return ElementTree.parse(folder / "Resources" / "UI" / f"{MODULE}.ui").getroot()


def widgets(form):
    return {element.get("name"): element for element in form.iter("widget")}


def test_cmake_packages_every_file_and_no_other(folder):
    text = (folder / "CMakeLists.txt").read_text(encoding="utf-8")
    scripts = {f"{MODULE}.py"}
    for package in (f"{MODULE}Lib", SHARED, "samconvex"):
        scripts |= {path.relative_to(folder).as_posix() for path in (folder / package).rglob("*.py")}
    scripts = {name for name in scripts if not name.startswith(NOT_INSTALLED)}
    assert listed(text, "MODULE_PYTHON_SCRIPTS", MODULE) == scripts
    resources = {path.relative_to(folder).as_posix() for path in (folder / "Resources").rglob("*") if path.is_file()}
    assert listed(text, "MODULE_PYTHON_RESOURCES", MODULE) == resources


def test_cmake_packages_the_shipped_weights(folder, repository):
    models = repository / "Resources" / "Models"
    present = {path.relative_to(models).as_posix() for path in models.rglob("*") if path.is_file()}
    present = {name for name in present if "__pycache__" not in name}
    assert listed((folder / "CMakeLists.txt").read_text(encoding="utf-8"), "MODEL_FILES", MODULE) == present


def test_every_widget_that_python_uses_is_in_the_form(python_files, form):
    names = set(widgets(form))
    for path in python_files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value
            if (isinstance(owner, ast.Attribute) and owner.attr == "ui") or (
                isinstance(owner, ast.Name) and owner.id == "ui"
            ):
                assert node.attr in names, f"{path.name}:{node.lineno}: ui.{node.attr}"


def test_every_parameter_in_the_form_exists_and_can_be_connected(form, folder):
    tree = ast.parse((folder / f"{MODULE}Lib" / "parameters.py").read_text(encoding="utf-8"))
    parameters = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == f"{MODULE}ParameterNode")
    fields = {n.target.id for n in parameters.body if isinstance(n, ast.AnnAssign)}
    bound = []
    for name, widget in widgets(form).items():
        for prop in widget.findall("property"):
            if prop.get("name") == "SlicerParameterName":
                bound.append(prop.find("string").text)
                assert bound[-1] in fields, f"{name} is bound to {bound[-1]}"
                assert widget.get("class") in CONNECTED, name
    assert len(bound) == len(set(bound))
    # The preset is chosen by a list that also holds the user's; it is bridged by hand.
    assert fields - set(bound) == {"preset", "chosenPreset"}


def test_every_node_selector_follows_the_scene(form):
    connected = {c.find("receiver").text for c in form.iter("connection") if "setMRMLScene" in c.find("slot").text}
    selectors = {name for name, widget in widgets(form).items() if widget.get("class").startswith("qMRMLNode")}
    assert selectors == connected
    for name in selectors:
        types = [p for p in widgets(form)[name].findall("property") if p.get("name") == "nodeTypes"]
        assert types[0].find("stringlist").get("notr") == "true", name


def test_every_control_explains_itself(form):
    for name, widget in widgets(form).items():
        if widget.get("class") not in CONTAINERS:
            tips = [p.find("string").text for p in widget.findall("property") if p.get("name") == "toolTip"]
            assert tips and tips[0], name


def test_every_label_of_a_field_is_its_buddy(form):
    names = set(widgets(form))
    buddies = [
        p.find("cstring").text for w in form.iter("widget") for p in w.findall("property") if p.get("name") == "buddy"
    ]
    assert buddies and set(buddies) <= names


def test_every_custom_class_is_declared(form):
    used = {w.get("class") for w in form.iter("widget") if not w.get("class").startswith("Q")}
    assert used == {c.find("class").text for c in form.iter("customwidget")}


def test_nothing_heavy_is_imported_at_file_scope(python_files):
    import sys

    for path in python_files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                roots = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots = [node.module.split(".")[0]]
            else:
                continue
            # The shared glue knows no module.
            own = set() if path.parent.name == SHARED else {f"{MODULE}Lib"}
            for root in roots:
                assert root in FILE_SCOPE_IMPORTS | own | sys.stdlib_module_names, f"{path.name}: {root}"


def test_the_engine_is_imported_by_one_function_that_finds_the_bundled_one(repository):
    """A plain import takes what pip installed as samconvex, which comes first on Slicer's path."""
    asked = set()
    for folder in (repository / MODULE, repository / "SAMLandmark"):
        for path in [*folder.glob("*.py"), *folder.glob("SAM*Lib/*.py")]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not [name for name in names if name.split(".")[0] == "samconvex"], f"{path.name}:{node.lineno}"
            asked |= {call.args[0].value for call in calls(ast.parse(path.read_text(encoding="utf-8")), "engineModule")}
    assert asked == ENGINE_MODULES


def test_qt_is_only_used_by_the_panels(python_files):
    for path in python_files:
        imported = {
            a.name
            for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(n, ast.Import)
            for a in n.names
        }
        with_qt = ("polling", "tablewidgets", "presetmenu", "previewpanel", "batchpanel")
        assert ("qt" in imported) <= (path.stem in with_qt), path.name


def test_the_module_does_not_load_torch(repository):
    import subprocess
    import sys

    code = (
        f"import sys; sys.path[:0] = [{str(repository / 'Testing')!r}]\n"
        "from harness import start, load_module\n"
        "start()\n"
        f"module = load_module({str(repository / MODULE / (MODULE + '.py'))!r})\n"
        "module.widgetRepresentation().enter()\n"
        "assert 'torch' not in sys.modules and 'samconvex.space' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]


def calls(tree, *names):
    return [
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in names
    ]


def test_translated_strings_are_literals_with_named_placeholders(python_files):
    count = 0
    for path in python_files:
        for call in calls(ast.parse(path.read_text(encoding="utf-8")), "_", "translate"):
            text = call.args[-1]
            if isinstance(call.args[0], ast.Name) and call.args[0].id == "_TABLE":
                continue
            assert isinstance(text, ast.Constant) and isinstance(text.value, str), f"{path.name}:{call.lineno}"
            assert all(field.isidentifier() for field in re.findall(r"{([^}:]*)[^}]*}", text.value)), text.value
            count += 1
    assert count > 100


def test_sentences_of_the_engines_table_are_literals_too(folder):
    tree = ast.parse((folder / "samconvex" / "settings" / "features.py").read_text(encoding="utf-8"))
    marked = [call.args[0] for call in calls(tree, "_")]
    assert len(marked) == 2 * len(calls(tree, "Choice")) > 10
    assert all(isinstance(text, ast.Constant) for text in marked)


def test_what_the_user_reads_is_translatable(python_files):
    """No plain text goes into a widget's text, title or tool tip."""
    for path in python_files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                if node.targets[0].attr in ("text", "toolTip", "title") and isinstance(node.value, ast.Constant):
                    assert not node.value.value, f"{path.name}:{node.lineno}"
            if isinstance(node, ast.JoinedStr):
                written = "".join(str(v.value) for v in node.values if isinstance(v, ast.Constant))
                # f-strings only make file names, options and numbers.
                assert len(written.split()) < 2, f"{path.name}:{node.lineno}: {written}"


def test_extension_metadata_agree(repository):
    cmake = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    entry = json.loads((repository / "SAMConvex.json").read_text(encoding="utf-8"))
    assert set(entry) <= {
        "$schema",
        "build_dependencies",
        "build_subdirectory",
        "category",
        "scm_revision",
        "scm_url",
        "tier",
    }
    assert re.search(r"project\((\w+)\)", cmake).group(1) == "SAMConvex"
    dependencies = re.search(r'EXTENSION_DEPENDS "([^"]*)"', cmake).group(1).split()
    assert entry["build_dependencies"] == dependencies == ["PyTorch"]
    homepage = re.search(r'EXTENSION_HOMEPAGE "([^"]*)"', cmake).group(1)
    assert entry["scm_url"] == homepage + ".git"
    assert homepage.rsplit("/", 1)[1] == "SlicerSAMConvex"
    for name in ("EXTENSION_DESCRIPTION", "EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS", "EXTENSION_CONTRIBUTORS"):
        assert re.search(rf'^set\({name} "[^"\n]+"\)$', cmake, re.M), name
    assert entry["category"] == "Registration"
    assert b"\r" not in (repository / "SAMConvex.json").read_bytes()
    # The embedding, not Segment Anything: the name alone would mislead.
    assert "self-supervised anatomical embedding" in cmake


def test_no_metadata_hold_a_semicolon(repository):
    """CPack takes them over unquoted: the catalog would show what stands before it."""
    values = re.findall(r'set\((EXTENSION_\w+) "([^"]*)"', (repository / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert {"EXTENSION_DESCRIPTION", "EXTENSION_CONTRIBUTORS"} <= {name for name, _value in values}
    assert [name for name, value in values if ";" in value] == []


def test_pictures_that_the_index_shows_are_in_the_repository(repository):
    cmake = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    urls = re.search(r'EXTENSION_ICONURL "([^"]*)"', cmake).group(1).split()
    urls += re.search(r'EXTENSION_SCREENSHOTURLS "([^"]*)"', cmake).group(1).split()
    for url in urls:
        path = repository / url.split("/main/", 1)[1]
        assert path.is_file(), path


def test_the_icon_has_the_size_the_index_recommends(repository):
    import struct

    for path in (
        repository / "Resources" / "SAMConvex.png",
        repository / MODULE / "Resources" / "Icons" / f"{MODULE}.png",
    ):
        header = path.read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", header[16:24]) == (128, 128)


def test_every_proof_in_the_feature_table_is_a_test(repository):
    folders = {"m": repository / "Testing" / "modules", "g": repository / "Testing" / "gui"}
    proofs = 0
    for line in (repository / "docs" / "features.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != 5 or cells[2] != "yes":
            continue
        file = None
        for place, name, test in re.findall(r"\b([mg]) (\w+)|`(\w+)`", cells[3]):
            if name:
                file = (folders[place] / f"test_registration_{name}.py").read_text(encoding="utf-8")
            else:
                assert re.search(rf"def test_\w*{test}", file), f"{cells[1]}: {test}"
            proofs += 1
        assert file is not None, cells[1]
    assert proofs > 80
