"""Promises of the repository: commands, packaging, licence, supported versions, and a README that tells the truth."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib


@pytest.fixture(scope="module")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def readme(repository) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def engine(repository) -> Path:
    return repository / "SAMConvexRegistration" / "samconvex"


def shell_lines(readme: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.S)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.split("#")[0].strip()]


def test_every_make_target_that_users_are_told_exists(repository, readme):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert {"setup", "demo", "test", "test-fast", "lint", "benchmark", "app", "clean"} <= targets
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", readme, re.M)) <= targets


def test_every_command_of_the_readme_is_understood(readme):
    from samconvex.cli.main import _parse

    lines = [line for line in shell_lines(readme) if line.startswith("samconvex ")]
    assert len(lines) >= 5
    for line in lines:
        command, args = _parse(line.split()[1:])
        assert command.name == line.split()[1] and args is not None


def test_python_example_of_the_readme_names_what_exists(readme):
    import samconvex

    example = re.search(r"```python\n(import samconvex as sc.*?)```", readme, re.S)
    assert example is not None
    ast.parse(example[1])
    for name in re.findall(r"\bsc\.(\w+)", example[1]):
        assert hasattr(samconvex, name)
    from samconvex.space.transforms import Transform

    for name in re.findall(r"(?:fixed_to_moving|moving_to_fixed)\.(\w+)", example[1]):
        assert hasattr(Transform, name)


def test_readme_links_and_pictures_exist(repository, readme):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if not link.startswith("http")]
    assert len(links) >= 3
    assert [link for link in links if not (repository / link).exists()] == []


def test_links_and_pictures_of_the_documents_exist(repository):
    missing = []
    for page in sorted((repository / "docs").glob("*.md")):
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        missing += [f"{page.name}: {link}" for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []
    assert "(../Resources/Screenshots/commissioning.png)" in (repository / "docs" / "commissioning.md").read_text(
        "utf-8"
    )


def test_supported_versions_are_the_promised_ones(project):
    metadata = project["project"]
    assert metadata["requires-python"] == ">=3.10"
    assert {"torch>=2.1", "numpy>=1.26"} <= set(metadata["dependencies"])
    assert {name.split(">")[0] for name in metadata["dependencies"]} == {"torch", "numpy", "SimpleITK", "Pillow"}
    assert metadata["scripts"]["samconvex"] == "samconvex.cli:main"


def test_every_engine_folder_is_packaged(project, repository, engine):
    folders = {path.parent for path in engine.rglob("*.py")}
    packages = {".".join(folder.relative_to(engine.parent).parts) for folder in folders}
    listed = set(project["tool"]["setuptools"]["packages"])
    assert packages <= listed
    assert listed - packages == {"samconvex.models"}
    assert (repository / project["tool"]["setuptools"]["package-dir"]["samconvex.models"]).is_dir()


def test_license_is_apache_2(repository, project):
    text = (repository / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text
    assert project["project"]["license"]["text"] == "Apache-2.0"
    assert "license: Apache-2.0" in (repository / "CITATION.cff").read_text(encoding="utf-8")


def test_versions_agree(repository):
    import samconvex

    assert f"version: {samconvex.__version__}" in (repository / "CITATION.cff").read_text(encoding="utf-8")


def test_ci_script_is_executable_and_runs_lint_and_tests(repository):
    script = repository / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make lint test" in script.read_text(encoding="utf-8")


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_engine_imports_nothing_but_torch_numpy_simpleitk_and_pillow(engine):
    allowed = set(sys.stdlib_module_names) | {"torch", "numpy", "SimpleITK", "PIL", "samconvex"}
    # Of their own commands, which say what they need: the cluster and the benchmark in the repository.
    allowed |= {"dask", "distributed", "benchmarks"}
    # An optional extra of one file.
    extra = {"dicom_report.py": {"pydicom", "highdicom"}}
    strangers = {
        str(path.relative_to(engine)): imported_modules(path) - allowed - extra.get(path.name, set())
        for path in engine.rglob("*.py")
    }
    assert {path: names for path, names in strangers.items() if names} == {}


def test_nothing_but_training_uses_training(engine):
    others = [path for path in engine.rglob("*.py") if "training" not in path.parts and path.name != "train.py"]
    assert [path.name for path in others if re.search(r"(from|import) [\w.]*training", path.read_text("utf-8"))] == []


def test_import_is_quiet_and_loads_no_torch(repository):
    code = "import sys, samconvex; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(repository / "SAMConvexRegistration")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_path_of_a_developers_machine_is_left(repository):
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    private = re.compile("/" + "work/|/" + "root/|/home/[a-z]+/")
    found = []
    for name in listed.stdout.splitlines():
        path = repository / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".ui", ".json", ".cff", "") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            if private.search(text):
                found.append(name)
    assert found == []
