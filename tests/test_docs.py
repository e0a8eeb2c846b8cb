"""The commands in docs/ parse, and the files that they name exist."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from flax_resnets import cli
from flax_resnets.training.recipes import load_config

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
JOBS = ROOT / "docs" / "jobs"


def shell_blocks() -> list[tuple[str, str]]:
    return [(p.name, block) for p in PAGES for block in re.findall(r"```sh\n(.*?)```", p.read_text(), flags=re.DOTALL)]


@pytest.mark.parametrize("script", [block for _, block in shell_blocks()] + [(JOBS / "slurm.sh").read_text()])
def test_its_shell_parses(script):
    result = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def training_commands() -> list[str]:
    texts = [p.read_text() for p in [*PAGES, JOBS / "slurm.sh"]]
    joined = re.sub(r"\\\n\s*", "", "\n".join(texts))
    in_blocks = "\n".join(re.sub(r"\\\n\s*", "", block) for _, block in shell_blocks())
    installed = re.findall(r"^flax-resnets train ([^\n&|#]+)", in_blocks, flags=re.MULTILINE)
    return [*re.findall(r"python train\.py ([^\n`\"&|]+)", joined), *installed]


@pytest.mark.parametrize("command", sorted(set(training_commands())))
def test_its_training_commands_are_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    parsed = cli.parse(["train", *shlex.split(command)])
    load_config(parsed.config, parsed.overrides)


def other_commands() -> list[str]:
    lines = "\n".join(re.sub(r"\\\n\s*", "", block) for _, block in shell_blocks())
    return re.findall(r"^flax-resnets (.+)", lines, flags=re.MULTILINE)


@pytest.mark.parametrize("command", sorted(set(other_commands())))
def test_its_other_commands_are_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    cli.parse(shlex.split(command, comments=True))


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("*.md")], ids=lambda page: page.name)
def test_every_row_of_its_tables_begins_and_ends_with_a_line(page):
    """Some readers of Markdown end a table at a row without them."""
    rows = [line for line in page.read_text().splitlines() if line.count("|") > 1 and line.rstrip().endswith("|")]
    assert [row for row in rows if not row.lstrip().startswith("|")] == []
