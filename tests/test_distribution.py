"""The sdist and the wheel: what they hold, and that the wheel works in an empty directory, without a clone."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import flax_resnets
from flax_resnets import cli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = flax_resnets.__version__


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A directory with the sdist, and with the wheel that is built from it, as a release is."""
    pytest.importorskip("hatchling")
    pytest.importorskip("hatch_fancy_pypi_readme")
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(directory)]
    subprocess.run([*build, "--target", "sdist"], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(directory / f"flax_resnets-{VERSION}.tar.gz") as archive:
        archive.extractall(directory, filter="data")
    source = directory / f"flax_resnets-{VERSION}"
    subprocess.run([*build, "--target", "wheel"], cwd=source, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The directory in which pip has installed the wheel."""
    target = tmp_path_factory.mktemp("installed")
    wheel = built / f"flax_resnets-{VERSION}-py3-none-any.whl"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True)
    return target


def test_the_wheel_holds_the_package_the_recipes_and_the_licences(built):
    wheel = zipfile.ZipFile(built / f"flax_resnets-{VERSION}-py3-none-any.whl")
    names = set(wheel.namelist())
    assert {f"flax_resnets/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")} <= names
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "flax_resnets").rglob("*") if path.is_file()}
    left_out = {"flax_resnets/data/sample/builder.py", "flax_resnets/data/sample/make.py"}
    assert {name for name in package - left_out if "__pycache__" not in name} <= names
    assert not left_out & names
    licences = {name for name in names if "/licenses/" in name}
    assert len(licences) == 3
    assert {name.split("/")[0] for name in names} == {"flax_resnets", f"flax_resnets-{VERSION}.dist-info"}


def test_its_description_has_no_relative_link(built):
    wheel = zipfile.ZipFile(built / f"flax_resnets-{VERSION}-py3-none-any.whl")
    metadata = wheel.read(f"flax_resnets-{VERSION}.dist-info/METADATA").decode()
    assert f"Version: {VERSION}\n" in metadata
    targets = re.findall(r"\]\(([^)]+)\)", metadata)
    assert len(targets) > 20
    assert all(target.startswith("https://") for target in targets), targets


def test_the_sdist_holds_no_results_and_no_tests(built):
    with tarfile.open(built / f"flax_resnets-{VERSION}.tar.gz") as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    assert {"flax_resnets", "configs", "docs", "README.md", "LICENSE", "pyproject.toml"} <= tops
    assert not {"results", "tests", "benchmarks"} & tops


def test_the_installed_package_works_without_a_clone(installed, tmp_path):
    program = "import flax_resnets; print(flax_resnets.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(installed))
    command = [sys.executable, "-m", "flax_resnets"]
    for arguments in (["train", "--help"], ["data", "fashion_mnist_sample", "--json"]):
        done = subprocess.run(
            [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert "rn18_imagenette" in done.stdout or '"fashion_mnist_sample"' in done.stdout
    assert (installed / "bin" / "flax-resnets").exists()


def requirements() -> dict[str, set[str]]:
    """The extras, "" for none, in which each distribution is required."""
    found: dict[str, set[str]] = {}
    for extra, listed in {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items():
        for text in listed:
            name = Requirement(text).name
            if name != "flax_resnets":
                found.setdefault(name, set()).add(extra)
    return found


def test_each_dependency_has_its_reason():
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]*) \| ([^|]+) \|", page, flags=re.MULTILINE)
    listed = {name: {extra.strip().replace("always", "") for extra in extras.split(",")} for name, extras, _ in rows}
    assert listed == requirements()


def test_upper_bounds_have_a_reason():
    """There is none. One that is added belongs here, with the test that fails without it."""
    for listed in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for text in listed:
            assert all(part.operator == ">=" for part in Requirement(text).specifier), text


def test_the_constraints_satisfy_the_lower_bounds():
    pins: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            name, version = re.match(r"([\w.-]+)==([\w.+]+)", line).groups()
            pins.setdefault(name.lower().replace("_", "-").replace(".", "-"), []).append(version)
    for listed in (PROJECT["dependencies"], PROJECT["optional-dependencies"]["train"]):
        for text in listed:
            wanted = Requirement(text)
            for version in pins[wanted.name.lower().replace("_", "-")]:
                assert wanted.specifier.contains(version), (text, version)


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for version in re.findall(r"flax_resnets-([\d.]+)-py3", page.read_text()):
            assert version == VERSION, page


WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}


def test_continuous_integration_tests_the_versions_of_python_that_are_promised():
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert WORKFLOWS["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"


def test_a_release_is_published_without_a_password():
    jobs = WORKFLOWS["publish.yml"]["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets" not in (ROOT / ".github/workflows/publish.yml").read_text()


def test_a_workflow_may_only_read_the_repository_and_keeps_no_password_of_it():
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}, name
        for step in (step for job in workflow["jobs"].values() for step in job["steps"]):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name


def test_the_form_for_a_bug_asks_for_the_environment():
    (body,) = [
        each
        for each in yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())["body"]
        if each.get("id") == "environment"
    ]
    assert "flax-resnets env" in body["attributes"]["description"]
    assert body["validations"]["required"] is True
    assert "env" in cli.COMMANDS
