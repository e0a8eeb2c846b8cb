"""Every command and block of Python in the pages runs or is understood, or a comment before it says why it is not run.

The pages are those of the site: docs/, and those beside it such as README.md.
"""

import os
import re
import shlex
import subprocess
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml
from PIL import Image

import flax_resnets
from flax_resnets import cli
from flax_resnets.data.source import open_source
from flax_resnets.inference.preprocess import Settings
from flax_resnets.training.recipes import load_config

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))}
JOBS = ROOT / "docs" / "jobs"

# The pages whose Python other tests run, with more around it.
PYTHON_ELSEWHERE = {
    "CONTRIBUTING.md": "tests/test_contributing.py",
    "callbacks.md": "tests/training/test_notebook.py",
    "coming_from.md": "tests/test_coming_from.py",
    "explain.md": "tests/inference/test_explain.py",
    "export.md": "tests/inference/test_export_classifier.py",
    "functions.md": "tests/test_own.py",
}


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks of a language, without those after a comment `<!-- not run: REASON -->`."""
    found = re.findall(rf"(<!-- not run: [^>]+ -->\n)?```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)
    return [block for not_run, block in found if not not_run]


def lines(block: str) -> list[str]:
    """The commands of a block of shell, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", block)
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


PYTHON_PAGES = [name for name, page in PAGES.items() if blocks(page, "python") and name not in PYTHON_ELSEWHERE]


@pytest.fixture
def quickstart(tmp_path, monkeypatch) -> Path:
    """A working directory with an image and, in place of the quickstart's run, a network that was not trained."""
    network: dict[str, Any] = {"model": "resnet10t", "model_options": {"width": 8}}
    settings = Settings(
        **network, dataset="fashion_mnist_sample", image_size=28, channels=1, mean=(0.286,), std=(0.353,)
    )
    model = flax_resnets.create_model("resnet10t", num_classes=10, width=8)
    variables = model.init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    names = open_source("fashion_mnist_sample", "validation").class_names
    flax_resnets.Classifier(model, variables, settings, names).save(tmp_path / "runs/quickstart")
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "shoe.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLAX_RESNETS_FAST_CPU", "1")  # one start is enough here
    return tmp_path


@pytest.mark.parametrize("name", PYTHON_PAGES)
def test_its_python_runs_from_top_to_bottom(name, quickstart):
    exec("\n".join(blocks(PAGES[name], "python")), {})


def test_all_python_is_run():
    for name, test in PYTHON_ELSEWHERE.items():
        assert name in (ROOT / test).read_text(), (name, test)


COMMANDS = sorted(
    {
        re.sub(r"^([A-Z_]+=\S+ )+", "", line).removesuffix(" &")
        for page in PAGES.values()
        for block in blocks(page, "sh")
        for line in lines(block)
    }
)


def understood(command: str) -> None:
    """Fails if a line of shell is not one that can be checked here, or has a mistake."""
    words = shlex.split(command, comments=True)
    match words:
        case ["flax-resnets", *arguments] | ["python", "-m", "flax_resnets", *arguments]:
            parsed = cli.parse(arguments)
        case ["python", "train.py", *arguments]:
            parsed = cli.parse(["train", *arguments])
        case ["python", "-m", module, *_] if module.startswith("benchmarks."):
            assert (ROOT / f"{module.replace('.', '/')}.py").exists()
            return
        case ["python", script, *_] if script.startswith("benchmarks/"):
            assert (ROOT / script).exists()
            return
        case ["pip" | "torch_env/bin/pip", "install", *what] | ["python", "-m", "pip", "install", *what]:
            asked = {extra for each in what for extra in "".join(re.findall(r"\[(.*)\]", each)).split(",") if extra}
            assert asked <= set(metadata("flax_resnets").get_all("Provides-Extra") or ()), command
            return
        case ["pytest" | "tensorboard" | "pre-commit" | "source" | "cp", *_] | ["python", "-m", "venv" | "pytest", *_]:
            return
        case _:
            pytest.fail(f"{command}: cannot be checked; write why it is not run: <!-- not run: REASON -->")
    if getattr(parsed, "config", None):
        load_config(parsed.config, parsed.overrides)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    for each in command.split(" && "):
        understood(each)


def test_its_sweeps_are_understood():
    from flax_resnets.training.sweep import axis, points

    sweeps = [command for command in COMMANDS if command.startswith("flax-resnets sweep ")]
    assert sweeps
    for command in sweeps:
        parsed = cli.parse(shlex.split(command)[1:])
        if not parsed.random:
            assert points(load_config(parsed.config, parsed.overrides), [axis(text) for text in parsed.over])


# Commands that are quick with a small network, with a part of what they print.
RUN = {
    "models": "resnet50d",
    "predict": "shoe.png",
    "evaluate": "confusion.png",
    "summary": "4.09 G multiply-adds",
    "show-batch": "show_batch.png",
    "lr-find": "valley",
    "data": "classes.png",
    "env": "versions",
}
SMALLER = {"lr-find": ["--config.image_size=14", "--config.model_options.width=8"]}
ON_PAGES = ("README.md", "networks.md", "training.md", "use.md")
RUN_COMMANDS = [
    command
    for command in COMMANDS
    if command.partition("flax-resnets ")[2].split(" ")[0] in RUN
    and any(command in block for name in ON_PAGES for block in blocks(PAGES[name], "sh"))
]


@pytest.mark.parametrize("line", RUN_COMMANDS)
def test_its_quick_commands_run(line, capsys, quickstart):
    command, *arguments = shlex.split(line)[1:]
    assert cli.main([command, *arguments, *SMALLER.get(command, [])]) == 0
    assert RUN[command] in capsys.readouterr().out


@pytest.mark.parametrize(
    "script",
    [(JOBS / "slurm.sh").read_text()]
    + [block for page in PAGES.values() for block in re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)],
)
def test_its_shell_parses(script):
    result = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


TRAINING = sorted(
    {
        command
        for text in [path.read_text() for path in (*PAGES.values(), JOBS / "slurm.sh")]
        for command in re.findall(r"python train\.py ([^\n`\"&|;]+)", re.sub(r"\\\n\s*", "", text))
    }
)


@pytest.mark.parametrize("command", TRAINING)
def test_its_training_commands_are_understood_wherever_they_stand(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    parsed = cli.parse(["train", *shlex.split(command)])
    load_config(parsed.config, parsed.overrides)


def test_the_kubernetes_job_holds_together():
    """Every document has a kind and a name. The job's pods use the service's name as subdomain, and have its label."""
    parts = {part["kind"]: part for part in yaml.safe_load_all((JOBS / "kubernetes.yaml").read_text())}
    assert sorted(parts) == ["Job", "Role", "RoleBinding", "Service", "ServiceAccount"]
    job, service = parts["Job"]["spec"], parts["Service"]
    pod = job["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": parts["Job"]["metadata"]["name"]}
    assert pod["serviceAccountName"] == parts["ServiceAccount"]["metadata"]["name"]
    assert job["completions"] == job["parallelism"]
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    shell, option, command = pod["containers"][0]["command"]
    assert (shell, option) == ("bash", "-c")
    training, _, asking = command.partition(" && ")
    program, script, *arguments = shlex.split(training)
    assert (program, script) == ("python", "train.py")
    parsed = cli.parse(["train", *arguments])
    assert (ROOT / parsed.config).exists()
    assert shlex.split(asking) == ["grep", "-q", '"event": "done"', f"{parsed.workdir}/metrics.jsonl"]


@pytest.mark.parametrize(
    ("training", "row", "queued"),
    [
        ("exit 0", '{"event": "done"}', False),
        ("exit 0", '{"event": "epoch"}', True),  # a signal stopped it
        ("exit 134", '{"event": "epoch"}', True),
        ("exit 2", '{"event": "epoch"}', False),
        ("exit 3", '{"event": "epoch"}', False),
    ],
)
def test_the_slurm_job_is_queued_again_until_it_is_done(tmp_path, training, row, queued):
    programs = {"srun": training, "scontrol": "echo queued $*"}
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    for path in (tmp_path / ".venv/bin/activate", tmp_path / "runs/rn50_imagenet/metrics.jsonl"):
        path.parent.mkdir(parents=True)
        path.touch()
    path.write_text(row + "\n")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["bash", JOBS / "slurm.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "queued requeue 7\n" * queued
    assert done.returncode == int(training.removeprefix("exit "))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_each_row_of_a_table_has_the_cells_of_its_header(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        rows = [len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in table.splitlines()]
        assert set(rows) == {rows[0]}, table.splitlines()[rows.index(next(n for n in rows if n != rows[0]))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_its_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]+))?\)", text):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_row_of_its_tables_begins_with_a_line(page):
    """Some readers of Markdown end a table at a row without one."""
    rows = [line for line in page.read_text().splitlines() if line.count("|") > 1 and line.rstrip().endswith("|")]
    assert [row for row in rows if not row.lstrip().startswith("|")] == []


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_its_pictures_have_a_text(page):
    assert "![](" not in page.read_text()
    assert all('alt="' in tag for tag in re.findall(r"<img [^>]*>", page.read_text()))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_the_files_it_names_exist(page):
    for path in re.findall(r"(?<![\w/])(?:flax_resnets|configs|docs|benchmarks|tests)/[\w/.-]*\w", page.read_text()):
        assert (ROOT / path).exists() or "augment/grey" in path, path


SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def pages_of(nav: list) -> list[str]:
    """The files of a nav, from top to bottom."""
    for entry in nav:
        (value,) = entry.values()
        yield from [value] if isinstance(value, str) else pages_of(value)


def test_the_site_has_each_page_once():
    assert sorted(pages_of(SITE["nav"])) == sorted(PAGES)


def test_the_site_asks_no_other_server_when_it_is_viewed():
    assert SITE["theme"]["font"] is False
    assert "repo_url" not in SITE  # the theme would ask its host for the number of stars
    assert "offline" in SITE["plugins"]
    assert "superfences: {custom_fences" not in str(SITE)


def test_the_reference_has_every_public_name():
    """What `__all__` lists, what pages and notebooks import, and every group of fields of a recipe."""
    listed = set(re.findall(r"^::: ([\w.]+)$", PAGES["api.md"].read_text(), flags=re.MULTILINE))
    pages = [page for name, page in PAGES.items() if name != "CONTRIBUTING.md"]  # which is about the package's own code
    for page in (*pages, *(ROOT / "notebooks").glob("*.ipynb")):
        text = page.read_text()
        for module, names in re.findall(r"^\W*from (flax_resnets[\w.]*) import ([\w, ]+)", text, flags=re.MULTILINE):
            imported = {f"{module}.{name.split()[0]}" for name in names.split(", ")}
            commands = {"flax_resnets.cli", "flax_resnets.cli.main", f"{module}.get_config"}  # and recipes
            assert imported <= listed | commands, page
    for module in (flax_resnets, flax_resnets.training, flax_resnets.inference):
        for name in module.__all__:
            assert {f"{module.__name__}.{name}", f"flax_resnets.{name}"} & listed, name
    fields = {name for name in listed if "." in name and name.rpartition(".")[2][0].isupper()}
    for group in flax_resnets.training.Config.__mro__:
        if "__annotations__" in vars(group) and group.__name__ not in ("Augmentation", "Fields"):
            assert f"{group.__module__}.{group.__name__}" in fields | {"flax_resnets.training.config.Config"}, group
    for name in listed:
        module, _, last = name.rpartition(".")
        assert last in dir(__import__(module, fromlist=[last])) or hasattr(__import__(module, fromlist=[last]), last), (
            name
        )
