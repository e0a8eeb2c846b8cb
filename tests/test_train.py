"""train.py, called as a user calls it."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import train
from flax_resnets import cli, cpu
from flax_resnets.cli.bench import contenders
from flax_resnets.data.lock import locked
from flax_resnets.training import load_config

ROOT = Path(__file__).parents[1]

# Three epochs of six steps: the network that compiles fastest, and few and small images.
SMALL = [
    "--config=configs/lenet_bn_fashion_mnist.py",
    "--config.dataset=fashion_mnist_sample",
    "--config.image_size=12",
    "--config.store_size=12",
    "--config.model_options.padding=2",
    "--config.train_split=train[:600]",
    "--config.validation_split=test[:100]",
    "--config.batch_size=100",
    "--config.epochs=3",
    "--config.save_every=2",
]


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "train.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out, err


def python() -> str:
    """The name by which a shell finds this Python."""
    found = shutil.which("python")
    return "python" if found and Path(found).parent == Path(sys.executable).parent else sys.executable


def last_row(workdir: Path) -> dict:
    return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "unbroken"
    finish(start(*SMALL, f"--workdir={workdir}"))
    return workdir


def test_a_run_leaves_what_the_readme_says(unbroken):
    rows = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert [row["event"] for row in rows] == ["epoch", "epoch", "epoch", "done"]
    assert len(rows[-1]["state_digest"]) == 64
    names = {path.name for path in unbroken.iterdir()}
    files = {"config.json", "data.json", "machine.json", "metrics.jsonl", "curves.png"}
    assert names == files | {"checkpoints", "tensorboard"}
    assert json.loads((unbroken / "config.json").read_text())["batch_size"] == 100


def test_ctrl_c_saves_and_says_how_to_go_on(unbroken, tmp_path):
    command = [*SMALL, f"--workdir={tmp_path / 'run'}"]
    process = start(*command)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(signal.SIGINT)
    out, _ = finish(process)
    assert f"stopped by SIGINT; to go on: {python()} train.py {shlex.join(command)}" in out
    out, _ = finish(start(*command))
    assert "going on from step" in out
    assert last_row(tmp_path / "run") == last_row(unbroken)


@pytest.mark.slow
def test_compiled_with_all_of_xlas_optimisations_it_goes_on_to_the_same_bits(tmp_path):
    """As a user's runs are compiled. The processes of the other tests inherit the flags of the root's conftest.py."""
    for name in ("unbroken", "run"):
        process = start(*SMALL, f"--workdir={tmp_path / name}", XLA_FLAGS="")
        if name == "run":
            until_training(process)
            process.send_signal(signal.SIGTERM)
        finish(process)
    out, _ = finish(start(*SMALL, f"--workdir={tmp_path / 'run'}", XLA_FLAGS=""))
    assert "going on from step" in out
    assert last_row(tmp_path / "run") == last_row(tmp_path / "unbroken")


def until_training(process: subprocess.Popen) -> str:
    """The output up to the table's header, after which training begins."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("epoch train_loss"):
            break
    return said


def test_the_line_to_go_on_with_works_where_it_was_called_from(unbroken, tmp_path):
    """Called from another directory, with a path that needs quotes in a shell."""
    script = os.path.relpath(ROOT / "train.py", tmp_path)
    recipe = SMALL[0].replace("=", f"={ROOT}/")
    process = subprocess.Popen(
        [sys.executable, script, recipe, *SMALL[1:], "--workdir=a run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "600 training and 100 validation images, 12 px, grey, 10 classes\n" in until_training(process)
    process.send_signal(signal.SIGTERM)
    out, _ = finish(process)
    _, _, line = out.partition("stopped by SIGTERM; to go on: ")
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert last_row(tmp_path / "a run") == last_row(unbroken)
    # The command that is printed at the end works too.
    _, _, line = done.stdout.partition("to see how much was luck: ")
    _, named, *arguments = shlex.split(line)
    assert named == script
    parsed = cli.parse(["train", *arguments])
    assert parsed.workdir == "a run-seed1"
    assert parsed.overrides["seed"] == "1"


def test_a_lost_terminal_saves_and_the_same_command_goes_on(unbroken, tmp_path):
    """As if the connection broke: SIGHUP, and no terminal to write to."""
    arguments = [*SMALL, f"--workdir={tmp_path / 'run'}"]
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, sys.executable, "train.py", *arguments],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    while b"train_loss" not in said:
        said += os.read(ours, 1000)
    os.close(ours)
    assert process.wait(timeout=240) == 0
    out, _ = finish(start(*arguments))
    assert "going on from step" in out
    assert last_row(tmp_path / "run") == last_row(unbroken)


IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_under_nohup_a_lost_terminal_is_nothing(unbroken, tmp_path):
    command = ["nohup", sys.executable, "train.py", *SMALL, f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until_training(process)
    process.send_signal(signal.SIGHUP)
    finish(process)
    assert last_row(tmp_path / "run") == last_row(unbroken)


def test_home_is_meant_by_a_tilde_and_a_warning_is_one_line(tmp_path):
    """Also the warning about a cache that cannot be written."""
    (tmp_path / "cache").touch()
    environment = {**os.environ, "HOME": str(tmp_path), "FLAX_RESNETS_CACHE": "~/cache"}
    shutil.copy(ROOT / "configs" / "lenet_bn_fashion_mnist.py", tmp_path / "mine.py")
    (tmp_path / "here").mkdir()
    short = [*SMALL[1:], "--config.epochs=1"]
    command = [sys.executable, str(ROOT / "train.py"), "--config=~/mine.py", "--workdir=~/run", *short]
    done = subprocess.run(
        command, cwd=tmp_path / "here", env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
    assert list((tmp_path / "here").iterdir()) == []
    for line in done.stderr.splitlines():
        assert line.startswith("train.py: image cache not written, the images stay in memory: ")
    assert done.stderr.count("\n") == 2  # one line for each split


COMMANDS = {
    "train": "train.py train --config=configs/quickstart.py --workdir={}/run",
    "lr-find": "flax_resnets lr-find --config=configs/quickstart.py --output={}/out",
    "show-batch": "flax_resnets show-batch --config=configs/quickstart.py --output={}/out",
    "bench": "flax_resnets bench --case=rn18-train",
}

# The commands one after another, each with its exit code and what it writes to stderr.
IN_ONE_PROCESS = """
import contextlib, io, json, sys
from flax_resnets import cli

for program, *arguments in map(str.split, sys.argv[1:]):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = cli.main(arguments, program, own_process=True)
    print(json.dumps([code, said.getvalue()]))
"""


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("JAX_PLATFORMS", "cuda", "JAX_PLATFORMS=cuda: finds no such device here"),
        ("JAX_PLATFORMS", "nonsense", "JAX_PLATFORMS=nonsense: finds no such device here"),
        ("XLA_FLAGS", "--xla_no_such_flag=1", "XLA_FLAGS=--xla_no_such_flag=1: Unknown flag in XLA_FLAGS"),
        ("JAX_ENABLE_X64", "1", "JAX_ENABLE_X64=1: a run computes in its precision"),
    ],
)
def test_devices_that_are_not_here_are_one_line(tmp_path, variable, value, message):
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS, *(command.format(tmp_path) for command in COMMANDS.values())],
        cwd=ROOT,
        env={**os.environ, variable: value},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    ends = dict(zip(COMMANDS, map(json.loads, done.stdout.splitlines()), strict=True))
    for command, (code, said) in ends.items():
        assert code == 2, command
        assert said.count("\n") == 1, command
        assert message in said
        assert len(said) < 600
    assert list(tmp_path.iterdir()) == []


def test_the_same_command_after_the_end_changes_nothing(unbroken):
    before = (unbroken / "metrics.jsonl").read_bytes()
    out, _ = finish(start(*SMALL, f"--workdir={unbroken}"))
    assert "already done, best accuracy" in out
    assert (unbroken / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_alone_it_lists_the_recipes_with_a_line_each(arguments, capsys):
    assert train.main(arguments) == 0
    out = capsys.readouterr().out
    for path in (ROOT / "configs").glob("*.py"):
        line = next(line for line in out.splitlines() if line.startswith(f"  {path.stem} "))
        assert len(line.split(maxsplit=1)[1]) > 20


@pytest.fixture
def broken_recipe(tmp_path) -> Path:
    path = tmp_path / "broken.py"
    path.write_text("def get_config(:\n")
    return path


def mistake(capsys, monkeypatch, workdir: Path, *arguments: str) -> str:
    """The line on stderr about a mistake."""
    monkeypatch.chdir(ROOT)
    assert train.main([*arguments, f"--workdir={workdir}"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("train.py: ")
    return captured.err


def test_it_prints_every_field_and_trains_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert train.main(["--config=quickstart", "--config.epochs=3", "--print_config"]) == 0
    out = capsys.readouterr().out
    assert os.listdir() == []
    assert json.loads(out) | {"epochs": 10} == json.loads(load_config("quickstart").to_json())
    Path("mine.json").write_text(out)
    assert load_config("mine.json") == load_config("quickstart", {"epochs": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--config.model=resnet19", "model='resnet19': no such model; did you mean"),
        ("--config.model_options.steem=small", "steem='small': resnet18 has no such option; did you mean stem?"),
        ("--config.model_options.dtype=bfloat16", "model_options.dtype='bfloat16': set precision instead"),
        ("--config.model=lenet", "stem='small': lenet has no such option; there are "),
        ("--config.dataset=fashion_mnits", "dataset='fashion_mnits': "),
        ("--config.epoch=1", "--config.epoch: no such field; did you mean epochs?"),
        ("--config.images=stream", "images=stream: must be one of cached, streamed; did you mean streamed?"),
        ("--config.epochs=many", "epochs=many: must be a whole number"),
        ("--config.epochs=-1", "epochs=-1: must be at least 1"),
        ("--config.batch_size=0", "batch_size=0: must be at least 1"),
        ("--config.batch_size=7000", "batch_size=7000: must be at most the 6000 training images"),
        ("--config.image_size=-28", "image_size=-28: must be at least 1"),
        ("--config.mean=0.1,0.2,0.3", "std=0.353: must have a value for each of mean's 3"),
        ("--config.data_dir=/no/such/place", "data_dir='/no/such/place': no such directory"),
        ("--config.epochs", "--config.epochs: write --config.epochs=VALUE"),
        ("--confg=x", "--confg: no such flag; did you mean --config?"),
        ("--verbose", "--verbose: no such flag; see --help"),
        ("quickstart", "takes no further argument: 'quickstart'; see --help"),
        ("--compile_only", "--compile_only: needs --topology"),
        ("--compile_only=yes", "--compile_only: takes no value: 'yes'"),
        ("--compile_onyl", "--compile_onyl: no such flag; did you mean --compile_only?"),
        ("--topology=v5e:4x4", "--topology=v5e:4x4: goes with --compile_only"),
        ("--coordinator=localhost:1234", "--coordinator=localhost:1234: goes with --num_processes"),
        ("--process_id=0", "--process_id=0: goes with --coordinator"),
        ("--workdir", "--workdir: needs a value"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(capsys, monkeypatch, tmp_path, change, message):
    workdir = tmp_path / "run"
    arguments = ["--config=configs/quickstart.py", change]
    if change == "--workdir":
        assert train.main(arguments) == 2
        assert message in capsys.readouterr().err
        return
    assert message in mistake(capsys, monkeypatch, workdir, *arguments)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("coordinator", "processes", "number", "message"),
    [
        ("localhost", "2", "0", "--coordinator=localhost: must be HOST:PORT, such as 10.0.0.1:1234"),
        ("localhost:0", "2", "0", "--coordinator=localhost:0: must be HOST:PORT"),
        (":1234", "2", "0", "--coordinator=:1234: must be HOST:PORT"),
        ("localhost:1234", "two", "0", "--num_processes=two: must be a whole number from 1 up"),
        ("localhost:1234", "2", "-1", "--process_id=-1: must be a whole number from 0 up"),
        ("localhost:1234", "2", "2", "--process_id=2: must be below --num_processes=2"),
    ],
)
def test_a_place_among_processes_that_there_is_not(
    capsys, monkeypatch, tmp_path, coordinator, processes, number, message
):
    place = [f"--coordinator={coordinator}", f"--num_processes={processes}", f"--process_id={number}"]
    workdir = tmp_path / "run"
    assert message in mistake(capsys, monkeypatch, workdir, "--config=configs/quickstart.py", *place)
    assert not workdir.exists()


def test_a_network_for_one_size_of_image_refuses_to_grow(capsys, monkeypatch, tmp_path):
    sample = "--config.dataset=fashion_mnist_sample"
    recipe = ["--config=configs/lenet_fashion_mnist.py", sample, "--config.progressive=(1,20),"]
    said = mistake(capsys, monkeypatch, tmp_path / "run", *recipe)
    assert "progressive: model='lenet' has other parameters for images of 20 px than of 28" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--topology=v5:4x4", "--topology=v5:4x4: must be v4, v5e, v5p, v6e and a shape, such as v5e:4x4"),
        ("--topology=v6e:8x9", "--topology=v6e:8x9: v6e comes as 1x1, 2x2, "),
        ("--topology=", "--compile_only: needs --topology"),
        ("--topology=v5e:4x4", "batch_size=100: must be a multiple of the 16 devices"),
    ],
)
def test_a_mistake_in_what_to_compile_for(capsys, monkeypatch, tmp_path, change, message):
    arguments = ["--config=configs/quickstart.py", "--config.batch_size=100", "--compile_only", change]
    assert message in mistake(capsys, monkeypatch, tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_missing_or_does_not_parse(capsys, monkeypatch, tmp_path, broken_recipe):
    workdir = tmp_path / "run"
    assert "No such file" in mistake(capsys, monkeypatch, workdir, "--config=configs/resnet.py")
    assert "broken.py:1: invalid syntax" in mistake(capsys, monkeypatch, workdir, f"--config={broken_recipe}")
    assert "--config=RECIPE is needed" in mistake(capsys, monkeypatch, workdir, "--config.epochs=1")
    assert not workdir.exists()


def test_a_data_dir_that_cannot_be_written(capsys, monkeypatch, tmp_path):
    """The dataset is not prepared there. If it were, the directory could be read-only."""
    arguments = "--config=configs/rn18_fashion_mnist.py", "--config.data_dir=/sys"
    assert "name a writable data_dir" in mistake(capsys, monkeypatch, tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_made(capsys, monkeypatch):
    message = mistake(capsys, monkeypatch, Path("/sys/run"), *SMALL)
    assert message.startswith("train.py: workdir=/sys/run: ")
    assert "pick a directory that can be written" in message


def test_a_workdir_of_another_models_run(capsys, monkeypatch, unbroken):
    message = mistake(capsys, monkeypatch, unbroken, *SMALL, "--config.model=lenet", "--config.seed=3")
    assert "holds another run, with model=lenet_bn (now lenet), seed=0 (now 3)" in message


def test_a_workdir_that_another_process_trains_in(capsys, monkeypatch, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with locked(workdir):
        message = mistake(capsys, monkeypatch, workdir, *SMALL)
    assert "another process is training in it" in message
    assert list(workdir.iterdir()) == []


def test_a_batch_that_the_devices_do_not_divide(tmp_path):
    arguments = *SMALL, "--config.batch_size=101", f"--workdir={tmp_path / 'run'}"
    process = start(*arguments, JAX_NUM_CPU_DEVICES="8")
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2
    assert err == "train.py: batch_size=101: must be a multiple of the 8 devices\n"


# With all of its images, so that the damaged one is among them.
ALL_OF_DAMAGED = ["--config.dataset=my_images", "--config.train_split=train", "--config.batch_size=1000"]


def test_a_damaged_image_is_named(capsys, monkeypatch, tmp_path, damaged_data_dir):
    arguments = *SMALL, *ALL_OF_DAMAGED, f"--config.data_dir={damaged_data_dir}"
    message = mistake(capsys, monkeypatch, tmp_path / "run", *arguments)
    assert "dataset 'my_images', split 'train', image " in message
    assert not (tmp_path / "run").exists()


def test_a_damaged_image_is_named_when_a_stream_comes_to_it(capsys, monkeypatch, tmp_path, damaged_data_dir):
    arguments = *SMALL, *ALL_OF_DAMAGED, f"--config.data_dir={damaged_data_dir}"
    message = mistake(capsys, monkeypatch, tmp_path / "run", *arguments, "--config.images=streamed")
    assert "dataset 'my_images', split 'train', image " in message


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
huge_pages_here = HUGE_PAGES.exists() and "[never]" not in HUGE_PAGES.read_text()


def starts_of(tmp_path: Path, *command: str, **environment: str) -> list[list[str]]:
    """Process id, command line and malloc's tunables for each start of Python by a command."""
    (tmp_path / "sitecustomize.py").write_text(
        "import json, os, sys\n"
        f"with open({str(tmp_path / 'starts')!r}, 'a') as starts:\n"
        "    print(json.dumps([os.getpid(), sys.orig_argv[1:], os.getenv('GLIBC_TUNABLES')]), file=starts)\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC", "MALLOC"))}
    environment = {**inherited, "PYTHONPATH": str(tmp_path), **environment}
    command = (sys.executable, "-W", "error", *command)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: python train.py")
    return [json.loads(line) for line in (tmp_path / "starts").read_text().splitlines()]


@pytest.mark.skipif(not huge_pages_here, reason="the system has no huge pages to give")
def test_train_starts_itself_over_with_huge_pages(tmp_path):
    (first, command, none), (second, again, tunables) = starts_of(tmp_path, "train.py", "--help")
    assert (second, again) == (first, command)
    assert (none, tunables) == (None, cpu.MALLOC)


@pytest.mark.parametrize("told", ["GLIBC_TUNABLES=glibc.malloc.tcache_count=0", "MALLOC_ARENA_MAX=1"])
def test_what_the_environment_tells_malloc_stays(tmp_path, told):
    name, _, value = told.partition("=")
    [(_, _, tunables)] = starts_of(tmp_path, "train.py", "--help", **{name: value})
    assert tunables == (value if name == "GLIBC_TUNABLES" else None)


def test_under_a_profiler_it_stays_as_it_was_started(tmp_path):
    program = "import runpy, sys; sys.argv = ['train.py', '--help']; runpy.run_path('train.py', run_name='__main__')"
    [(_, _, tunables)] = starts_of(tmp_path, "-c", program)
    assert tunables is None


@pytest.mark.skipif(not huge_pages_here, reason="the system has no huge pages to give")
def test_with_huge_pages_few_are_faulted_in():
    program = (
        "import resource\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "before, large = faults(), bytearray(b'x') * 2**27\n"
        "print(faults() - before)\n"
    )
    faults = {}
    for tunables in ("", cpu.MALLOC):
        environment = {**os.environ, "GLIBC_TUNABLES": tunables}
        faults[tunables] = int(subprocess.check_output([sys.executable, "-c", program], env=environment))
    assert faults[cpu.MALLOC] < 2**27 // 2**12 / 10
    if "[always]" not in HUGE_PAGES.read_text():
        assert faults[""] > 2**27 // 2**12 / 2


def test_the_benchmark_runs_ours_as_train_does():
    assert contenders.MALLOC == cpu.MALLOC


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on memory")
def test_a_batch_that_memory_does_not_hold_is_one_line(tmp_path):
    program = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); sys.argv[0] = 'train.py'"
    )
    large = ["--config.train_split=train", "--config.image_size=112", "--config.batch_size=6000"]
    command = [sys.executable, "-c", f"{program}; runpy.run_path('train.py', run_name='__main__')", *SMALL, *large]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("train.py: batch_size=6000: out of the device's memory (")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
