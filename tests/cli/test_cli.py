"""`python -m flax_resnets`, as a user types it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from flax_resnets import __version__, cli
from flax_resnets.cli.table import table
from flax_resnets.training.recipes import load_config

ROOT = Path(__file__).parents[2]


def run(capsys, *arguments: str) -> str:
    """The output of a command line."""
    assert cli.main(list(arguments)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def numbers(line: str) -> list[int]:
    return [int(cell.replace(",", "")) for cell in line.split()[-2:]]


@pytest.mark.parametrize(
    ("arguments", "parameters", "multiply_adds", "in_short"),
    [
        (["resnet18", "--image-size", "224"], 11_689_512, 1_814_073_344, "11.69 M parameters, 1.81 G multiply-adds"),
        (["resnet50"], 25_557_032, 4_089_184_256, "25.56 M parameters, 4.09 G multiply-adds"),
        (["lenet", "--num-classes=0"], 61_706 - 850, 416_520 - 840, "60.86 k parameters, 415.68 k multiply-adds"),
        (["resnet18", "--channels=1"], 11_689_512 - 2 * 49 * 64, 1_814_073_344 - 2 * 49 * 64 * 112**2, "1.74 G"),
    ],
)
def test_summary_ends_in_exact_totals(capsys, arguments, parameters, multiply_adds, in_short):
    out = run(capsys, "summary", *arguments)
    *rows, total, blank, last = out.splitlines()[3:]
    assert numbers(total) == [parameters, multiply_adds]
    assert [sum(column) for column in zip(*map(numbers, rows), strict=True)] == numbers(total)
    assert not blank
    assert in_short in last


def test_summary_names_each_layer_with_its_shape(capsys):
    lines = run(capsys, "summary", "resnet18", "--image-size=193").splitlines()
    assert lines[0].startswith("resnet18 on images of 193 x 193 x 3, 1,000 classes; He et al. 2015")
    assert lines[2].split() == ["layer", "kind", "output", "parameters", "multiply-adds"]
    assert lines[3].split("  ")[0] == "stem_conv"
    assert " 97 x 97 x 64 " in lines[3]
    assert [line.split()[0] for line in lines[5:13]] == [f"stage{i}_block{j}" for i in (1, 2, 3, 4) for j in (1, 2)]


def test_summary_looks_deeper_and_comes_to_the_same(capsys):
    shallow = run(capsys, "summary", "seresnet18").splitlines()
    deep = run(capsys, "summary", "seresnet18", "--depth", "2").splitlines()
    assert shallow[-3].split() == deep[-3].split()
    assert any(line.startswith("stage4_block1/squeeze_excite") for line in deep)
    deepest = run(capsys, "summary", "seresnet18", "--depth=9").splitlines()
    assert any(line.startswith("stage4_block1/squeeze_excite/reduce  Linear  ") for line in deepest)


def test_models_lists_what_a_pattern_matches(capsys):
    header, *rows = run(capsys, "models", "resnet??d").splitlines()
    assert header.split() == ["name", "image", "classes", "parameters", "GMACs"]
    names = ["resnet18d", "resnet34d", "resnet50d", "resnet26d"]
    assert [row.split()[0] for row in rows] == names
    assert rows[2].split()[-3:] == ["1,000", "25,576,264", "4.33"]
    everything = run(capsys, "models").splitlines()
    assert {"resnet18", "wide_resnet101_2", "resnet110_cifar", "lenet", "densenet"} <= {
        row.split()[0] for row in everything
    }


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_commands_are_listed(capsys, arguments):
    out = run(capsys, *arguments)
    for command in cli.COMMANDS:
        assert f"    {command} " in out


def test_it_begins_with_what_a_newcomer_needs(capsys):
    lines = run(capsys).splitlines()
    steps = [line.strip() for line in lines[lines.index("to begin:") + 1 : lines.index("train:") - 1]]
    assert steps[0] == "flax-resnets train --config quickstart"
    for step in steps:
        cli.parse(step.split()[1:])


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_explains_itself_with_an_example(capsys, command):
    out = run(capsys, command, "--help")
    assert out.startswith(f"usage: flax-resnets {command}")
    examples = re.findall(rf"^    (?:.* \| )?flax-resnets ({command}(?: .+)?)$", out, flags=re.MULTILINE)
    assert examples
    for example in examples:
        parsed = cli.parse(shlex.split(example))
        if getattr(parsed, "config", None) == "quickstart":
            load_config(parsed.config, parsed.overrides)
    assert "--quiet" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sumary resnet18", "sumary: no such command; did you mean summary?"),
        ("frobnicate", "frobnicate: no such command; see --help"),
        ("summary", "summary: the following arguments are required: model"),
        ("summary resnt50", "model='resnt50': no such model; did you mean resnet50"),
        ("summary resnet18 --image-sise=3", "summary: --image-sise: no such flag; did you mean --image-size?"),
        ("summary resnet18 --image-size", "summary: --image-size: needs a value"),
        ("summary resnet18 --image-size=big", "summary: --image-size=big: must be a whole number from 1 up"),
        ("summary resnet18 --depth=0", "summary: --depth=0: must be a whole number from 1 up"),
        ("summary alexnet --image-size=28", "summary: alexnet on images of 28 x 28 x 1: the image is too small"),
        (
            f"summary lenet --image-size={10**20}",
            f"summary: --image-size={10**20}: must be a whole number from 1",
        ),
        ("models resnet18 resnet50", "models: takes no further argument: 'resnet50'; see --help"),
        ("train epochs=3", "train: takes no further argument: 'epochs=3'; did you mean --config.epochs=3?"),
        ("models nothing", "models: no name matches nothing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, line, message):
    assert cli.main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"flax_resnets: {message}")
    assert captured.err.count("\n") == 1


def start(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", *arguments]


def test_module_runs_and_reports_its_exit_code():
    done = subprocess.run(start("-m", "flax_resnets", "summry"), cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "flax_resnets: summry: no such command; did you mean summary?\n"


@pytest.mark.parametrize("unbuffered", ["1", ""])
@pytest.mark.parametrize("arguments", ["models", "--help"])
def test_a_full_disk_behind_stdout_is_one_line(arguments, unbuffered):
    command, environment = start("-m", "flax_resnets", arguments), {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "flax_resnets: standard output: No space left on device\n")


def test_a_closed_stdout_is_no_error():
    line = shlex.join(start("-m", "flax_resnets", "models")) + " >&-"
    done = subprocess.run(line, shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_error_of_the_system_is_not_taken_for_one_of_stdout(monkeypatch, capsys):
    monkeypatch.setattr("flax_resnets.cli.models.run", lambda arguments: os.stat("/no/such/file"))
    with pytest.raises(FileNotFoundError):
        cli.main(["models"])


def test_a_directory_whose_name_is_no_text_is_printed(tmp_path):
    directory = os.fsdecode(os.fsencode(tmp_path) + b"/w\xe9")
    for number in range(8):
        path = f"{directory}/{('cat', 'dog')[number % 2]}/{number}.png"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    picture = os.fsdecode(os.fsencode(tmp_path) + b"/o\xe9.png")
    done = subprocess.run(
        start("-m", "flax_resnets", "data", "folder", f"--data_dir={directory}", f"--picture={picture}"),
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert rf"folder in {tmp_path}/w\udce9: 2 classes" in done.stdout
    assert done.stdout.endswith(f"{tmp_path}/o\\udce9.png\n")


def test_the_version_is_printed(capsys):
    assert run(capsys, "--version") == f"flax_resnets {__version__}\n"


def test_a_reader_who_leaves_early_is_no_error():
    command = start("-m", "flax_resnets", "models")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


NEEDS_NEITHER = """
import sys
import flax.linen
before = set(sys.modules)
import flax_resnets
assert "flax_resnets.cli" not in sys.modules
from flax_resnets import cli
assert cli.main(["summary", "resnet18"]) == 0
brought = {name.split(".")[0] for name in set(sys.modules) - before}
assert brought <= {"einops", "flax_resnets", *sys.stdlib_module_names}, brought
from jax._src import xla_bridge  # no public word for it
assert not xla_bridge.backends_are_initialized(), "a table needs no device, and takes no GPU's memory"
"""


def test_a_summary_needs_neither_the_trainer_nor_a_device():
    subprocess.run(start("-c", NEEDS_NEITHER), cwd=ROOT, capture_output=True, text=True, check=True)


def test_a_table_is_aligned():
    assert table(["a", "bb"], [["ccc", "1"]], left=1).splitlines() == ["a    bb", "ccc   1"]


def test_ctrl_c_is_one_line(capsys, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("flax_resnets.cli.models.run", interrupted)
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == "flax_resnets: interrupted\n"


def test_a_flag_may_be_written_with_hyphens_or_underscores(capsys):
    out = run(capsys, "summary", "lenet", "--num_classes=3", "--image_size", "32")
    assert out == run(capsys, "summary", "lenet", "--num-classes=3", "--image-size", "32")
    assert cli.parse(["train", "--config=quickstart", "--num-processes=2"]).num_processes == 2
