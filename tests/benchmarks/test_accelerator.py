"""benchmarks/accelerator.py with small sizes on a CPU: how tasks end, the rows, and the page."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from benchmarks import accelerator
from benchmarks.on_accelerator import correct as accelerator_correct
from benchmarks.on_accelerator import fast as accelerator_fast
from benchmarks.on_accelerator import results as accelerator_results
from benchmarks.on_accelerator import tasks as accelerator_tasks
from benchmarks.on_accelerator.page import page
from benchmarks.on_accelerator.rows import RowFile, latest, read_all, read_rows
from benchmarks.on_accelerator.tasks import Job, run_tasks
from flax_resnets.errors import UserError
from flax_resnets.training.placement import make_mesh
from flax_resnets.training.step import make_train_step

ROOT = Path(__file__).parents[2]
ON_A_GPU = {"device": "NVIDIA H100 80GB HBM3", "jax": "0.11.2"}


def job(part="correct", seconds=60.0, **changes) -> Job:
    told = {"small": True, "output": "/no/such/directory", "data_dir": None, "backend": "cpu", "device": "cpu"}
    return Job(part=part, deadline=time.time() + seconds, devices=1, **told | changes)


def rows_of(output: Path) -> list[dict]:
    (path,) = output.glob("*.jsonl")
    return read_rows(path)


# The parts, as a user starts them.


def worker_that(tmp_path: Path, *before: str) -> list[str]:
    """The command that starts a worker which does something else first."""
    script = tmp_path / "worker.py"
    lines = "import sys", f"sys.path.insert(0, {str(ROOT)!r})", *before
    script.write_text("\n".join([*lines, "from benchmarks.on_accelerator.tasks import work", "work(sys.argv[1])\n"]))
    return [sys.executable, str(script)]


def test_part_one_holds_on_a_cpu(tmp_path, monkeypatch):
    """With the networks that compile fastest; all of them take a minute more."""
    chosen = ["resnet18", "quickstart"]
    networks = {name: accelerator_correct.NETWORKS[name] for name in chosen}
    monkeypatch.setattr(accelerator_correct, "NETWORKS", networks)
    change = "from benchmarks.on_accelerator import correct", f"correct.NETWORKS = {networks!r}"
    monkeypatch.setattr(accelerator_tasks, "WORKER", worker_that(tmp_path, *change))
    output = tmp_path / "output"
    assert accelerator.main(["--small", "--part", "correct", "--budget", "3000", "--output", str(output)]) == 0
    machine, *rows = rows_of(output)
    assert machine["backend"] == "cpu"
    assert machine["cores"] >= 1
    assert [row for row in rows if not row.get("ok")] == []
    assert all(row["small"] and row["part"] == "correct" for row in rows)
    compared = [(row["task"], row["precision"]) for row in rows if "precision" in row]
    assert compared == [(name, each) for name in chosen for each in accelerator_correct.PRECISIONS]
    by_task = {row["task"]: row for row in rows}
    assert by_task["50 steps in float16"]["loss_scale"] >= 1
    assert len(by_task["20 steps"]["losses"]) == 20
    assert by_task["stopped, saved and resumed"]["stopped_at"]
    # bfloat16 differs by more than float32's rounding, and by less than its bound.
    assert by_task["resnet18"]["precision"] == "bfloat16"
    assert 1e-4 < by_task["resnet18"]["worst"]["logits"] < 2e-2


def test_part_one_has_a_task_for_every_network_and_run():
    names = [*accelerator_correct.RUNS, *accelerator_correct.NETWORKS]
    assert list(accelerator_correct.tasks(job())) == names


@pytest.mark.parametrize("name", accelerator_correct.NETWORKS)
def test_a_step_of_every_network_of_part_one_gives_gradients_and_statistics(name):
    """By its shapes alone, in bfloat16."""
    config, mesh = accelerator_correct._config(name, "bfloat16", True), make_mesh()
    model, optimizer = accelerator_correct._model(config, True), accelerator_correct._optimizer(config)
    state, batch = accelerator_correct._shapes(config, model, optimizer, mesh)
    end, _ = jax.eval_shape(make_train_step(model, optimizer, config, mesh), state, batch)
    gradients = optax.tree.get(end.opt_state, "trace")
    assert jax.tree.map(lambda leaf: leaf.shape, gradients) == jax.tree.map(lambda leaf: leaf.shape, state.params)
    assert jax.tree.leaves(end.batch_stats)


@pytest.mark.slow
def test_all_parts_small(tmp_path):
    begun = time.monotonic()
    assert accelerator.main(["--small", "--budget", "3000", "--output", str(tmp_path)]) == 0
    seconds = time.monotonic() - begun
    rows = rows_of(tmp_path)
    assert [row for row in rows if "error" in row or row.get("ok") is False] == []
    assert {row["part"] for row in rows} == {"machine", "correct", "fast", "results"}
    fast = {row["task"]: row for row in rows if row["part"] == "fast"}
    assert set(fast) == set(accelerator_fast.tasks(job("fast")))
    assert sum(row["task"] == "trace" for row in rows) == 10
    assert [row["way"] for row in rows if row["task"] == "input"] == list(accelerator_fast.WAYS)
    for run in accelerator_results.RUNS[:2]:
        (row,) = (row for row in rows if row["task"] == run.name)
        assert row["done"]
        home = Path(row["home"])
        assert {path.name for path in home.iterdir()} == {"config.json", "metrics.jsonl", "curves.png", "machine.json"}
        assert json.loads((home / "config.json").read_text())["precision"] == (run.precision or "float32")
    assert seconds < 240 or os.getloadavg()[0] > 3  # on a busy machine the comparison of speeds proves nothing


# Wrong requests.


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--small --part nosuch", "--part: invalid choice: 'nosuch'"),
        ("--small --budget 0", "--budget: 0: must be seconds, a number above 0"),
        ("--small --budget=-3", "--budget: -3: must be seconds"),
        ("--small --budget inf", "--budget: inf: must be seconds"),
        ("--small --budget soon", "--budget: soon: must be seconds"),
        ("--small --data_dir /no/such/data", "--data_dir=/no/such/data: no such directory"),
        ("--smallest", "unrecognized arguments: --smallest"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, capsys, line, words):
    (tmp_path / "docs").mkdir()
    before = list(tmp_path.rglob("*"))
    assert accelerator.main(line.split(), root=tmp_path) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"accelerator.py: {words}")
    assert captured.err.count("\n") == 1
    assert list(tmp_path.rglob("*")) == before


def on_cpus(monkeypatch):
    found = {"backend": "cpu", "device": "cpu", "devices": 1, "memory": None, "jax": "0.12"}
    monkeypatch.setattr(accelerator, "probe", lambda: found)


def test_without_an_accelerator_it_says_so(tmp_path, capsys, monkeypatch):
    on_cpus(monkeypatch)
    assert accelerator.main(["--output", str(tmp_path / "here")]) == 2
    err = capsys.readouterr().err
    assert err == "accelerator.py: no accelerator: JAX finds CPUs alone; --small takes them for one, with small sizes\n"
    assert not (tmp_path / "here").exists()


def test_jax_that_does_not_start_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accelerator, "_PROBE", "raise RuntimeError('no driver')")
    assert accelerator.main(["--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "accelerator.py: JAX does not start: RuntimeError: no driver\n"


def test_an_output_that_cannot_be_written_is_named(tmp_path, capsys, monkeypatch):
    on_cpus(monkeypatch)
    (tmp_path / "file").write_text("theirs")
    assert accelerator.main(["--small", "--output", str(tmp_path / "file")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"accelerator.py: --output={tmp_path / 'file'}: ")
    assert captured.err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "theirs"


def test_what_is_in_the_way_stays(tmp_path, capsys, monkeypatch):
    on_cpus(monkeypatch)
    (tmp_path / "cpu-small.jsonl").write_text("a poem\n")
    assert accelerator.main(["--small", "--output", str(tmp_path)]) == 2
    assert "line 1 is no row of accelerator.py's: 'a poem'" in capsys.readouterr().err
    assert (tmp_path / "cpu-small.jsonl").read_text() == "a poem\n"


# Rows.


def test_rows_are_whole_and_half_a_line_is_removed(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    rows = RowFile(path)
    rows.add({"part": "correct", "task": "a", "worst": float("inf"), "each": [float("nan"), 1.0]})
    rows.close()
    with path.open("a") as file:
        file.write('{"part": "correct", "ta')  # as after a power cut
    rows = RowFile(path)
    rows.add({"part": "correct", "task": "b"})
    rows.close()
    found = read_rows(path)
    assert [row["task"] for row in found] == ["a", "b"]
    assert found[0]["worst"] is None
    assert found[0]["each"] == [None, 1.0]


def test_a_line_that_is_no_row_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"part": "fast", "task": "trace"}\n[1, 2]\n')
    with pytest.raises(UserError, match=r"rows\.jsonl: line 2 is no row of accelerator\.py's: '\[1, 2\]'"):
        read_all(tmp_path)


def test_a_full_disk_leaves_earlier_rows_whole(tmp_path, monkeypatch):
    rows = RowFile(tmp_path / "rows.jsonl")
    rows.add({"part": "fast", "task": "a"})
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:7]))
    with pytest.raises(UserError, match="the disk is full; earlier rows are complete"):
        rows.add({"part": "fast", "task": "b"})
    assert [row["task"] for row in read_rows(rows.path)] == ["a"]
    rows.close()


def test_killed_at_any_moment_what_was_written_is_whole(tmp_path):
    """kill -9 while hundreds of rows are written, several times with the same file."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom benchmarks.on_accelerator.rows import RowFile\n"
        "rows = RowFile(Path(sys.argv[1]))\nprint('open', flush=True)\n"
        "while True:\n    rows.add({'part': 'fast', 'task': 't', 'long': 'x' * 5000})\n"
    )
    path, before = tmp_path / "rows.jsonl", 0
    for wait in (0.0, 0.02, 0.05, 0.11):
        process = subprocess.Popen([sys.executable, "-c", program, path], cwd=ROOT, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(wait)
        process.kill()
        process.wait()
        process.stdout.close()
        rows = read_rows(path, cut_short=True)
        assert all(len(row["long"]) == 5000 for row in rows)
        assert len(rows) >= before
        before = len(rows)
    assert before


# Tasks.

TASKS = """
import os, sys, time

def tasks(job):
    def fine():
        yield {"figure": 1}
        yield {"figure": 2}
    def fails():
        yield {"figure": 3}
        raise ValueError("no such\\n  thing")
    def dies():
        yield {"figure": 4}
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(7)
    def hangs():
        open(job.output, "w").write(str(os.getpid()))
        yield {"figure": 5}
        time.sleep(600)
    def told():
        print("a library prints this")
        yield {"environment": os.environ.get("TOLD"), "small": job.small, "pid": os.getpid()}
    return {name: f for name, f in locals().items() if name != "job"}
"""


@pytest.fixture
def part(tmp_path, monkeypatch):
    """A part named `made`, with tasks that end in all possible ways."""
    (tmp_path / "made.py").write_text(TASKS)
    # The worker imports it like the real parts.
    beside = "import benchmarks.on_accelerator", f"benchmarks.on_accelerator.__path__.append({str(tmp_path)!r})"
    monkeypatch.setattr(accelerator_tasks, "WORKER", worker_that(tmp_path, *beside))
    return job("made", output=str(tmp_path / "pid"))


def test_each_task_ends_by_itself(part):
    """A task that raises an error or ends its process does not affect the others; its row has the reason."""
    names = ["fine", "fails", "dies", "told"]
    for together in (True, False):
        rows = list(run_tasks(part, names, together=together, environment={"TOLD": "yes"}))
        assert rows[:5] == [
            ("fine", {"figure": 1}),
            ("fine", {"figure": 2}),
            ("fails", {"figure": 3}),
            ("fails", {"error": "ValueError: no such thing"}),
            ("dies", {"figure": 4}),
        ]
        assert rows[5] == ("dies", {"error": "ended with exit code 7: out of luck"})
        name, last = rows[6]
        assert name == "told"
        assert (last["environment"], last["small"]) == ("yes", True)


def test_a_task_that_hangs_is_ended_with_the_time(monkeypatch, part):
    late = 0.0
    monkeypatch.setattr(accelerator_tasks, "time", SimpleNamespace(time=lambda: time.time() + late))
    rows = run_tasks(part, ["hangs", "fine"], together=True)
    assert next(rows) == ("hangs", {"figure": 5})
    late = 600.0
    assert list(rows) == [
        ("hangs", {"error": "the time was up, and it was stopped"}),
        ("fine", {"skipped": "the time was up before it began"}),
    ]
    assert not alive(int(Path(part.output).read_text()))


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_nothing_outlives_the_script_however_it_is_ended(part, tmp_path):
    """A worker whose parent has ended must end too, and release the device."""
    program = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n"
        "from benchmarks.on_accelerator import tasks\n"
        f"tasks.WORKER = {accelerator_tasks.WORKER!r}\n"
        "import json\njob = tasks.Job(**json.loads(sys.argv[1]))\n"
        "for name, row in tasks.run_tasks(job, ['hangs'], together=True):\n    print(row, flush=True)\n"
    )
    told = json.dumps(dataclasses.asdict(part))
    process = subprocess.Popen([sys.executable, "-c", program, told], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    pid = int(Path(part.output).read_text())
    until = time.monotonic() + 20
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(pid)


def test_a_budget_that_is_spent_at_once_leaves_rows_that_say_so(tmp_path, monkeypatch):
    on_cpus(monkeypatch)
    assert accelerator.main(["--small", "--budget", "0.001", "--output", str(tmp_path)]) == 0
    _, *rows = rows_of(tmp_path)
    assert {row["part"] for row in rows} == {"correct", "fast", "results"}
    assert {row["skipped"] for row in rows} == {"the time was up before it began"}


# Functions of the parts.


def test_differences_are_relative_and_of_the_worst_array():
    wanted = {"large": np.full(4, 10.0), "small": np.full(4, 1e-6)}
    assert accelerator_correct.compared(wanted, wanted) == 0
    off = wanted | {"large": np.full(4, 11.0)}
    assert accelerator_correct.compared(off, wanted) == pytest.approx(0.1)
    # The difference of an array near 0 is relative to a hundredth of the whole tree.
    noise = wanted | {"small": np.full(4, 2e-6)}
    assert accelerator_correct.compared(noise, wanted) < 1e-4
    assert accelerator_correct.compared(wanted | {"small": np.full(4, np.nan)}, wanted) == np.inf
    assert accelerator_correct.together(off, wanted) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("device", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA GeForce RTX 4090", None),
        ("cpu", None),
    ],
)
def test_the_peaks_of_devices(device, flops):
    assert accelerator_fast.peak(device) == flops


def test_a_batch_that_does_not_fit_is_halved():
    def measure(batch: int) -> str:
        if batch > 40:
            raise accelerator_fast.OutOfMemory
        return "fits"

    assert accelerator_fast.halved(measure, 256) == ("fits", 32, [256, 128, 64])
    with pytest.raises(accelerator_fast.OutOfMemory):
        accelerator_fast.halved(lambda batch: measure(41), 4)


def test_contenders_that_do_not_fit_beside_each_other_get_a_smaller_batch(monkeypatch):
    from flax_resnets.cli.bench.interleave import Measurement

    def interleave(processes, rounds, turn):
        result = Measurement()
        for contender in (each for process in processes for each in process.contenders):
            assert contender.options["precision"] == "bfloat16"
            if contender.name.startswith("plain") and contender.options["batch"] > 64:
                result.left_out[contender.name] = "XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory"
            else:
                result.seconds[contender.name] = [2.0 if contender.name.startswith("plain") else 1.0] * rounds
                result.facts[contender.name] = {"first_seconds": 30.0}
        return result

    monkeypatch.setattr(sys.modules["flax_resnets.cli.bench.interleave"], "interleave", interleave)
    monkeypatch.setattr("flax_resnets.cli.bench.contenders.torch_is_here", lambda: False)
    told = job("fast", small=False, device=ON_A_GPU["device"])
    rows = list(accelerator_fast.tasks(told)["resnet50 train"]())
    ours, linen, torch = rows
    assert [row["contender"] for row in rows] == ["ours", "plain linen", "torchvision"]
    assert (ours["batch"], ours["did_not_fit"], ours["asked_batch"]) == (64, [256, 128], 256)
    assert linen["ours_is_times_as_fast"] == 2
    assert ours["share_of_peak"] == pytest.approx(64 * 3 * 2 * 4_089_184_256 / 989e12)
    assert torch["skipped"] == "torch or torchvision is not installed here"
    inference = list(accelerator_fast.tasks(told)["resnet50 inference"]())
    sizes = [(row["batch"], row["asked_batch"]) for row in inference if row["contender"] == "ours"]
    assert sizes == [(1, 1), (32, 32), (64, 256)]


def a_step(peak_at=lambda batch: 10 * batch, limit=10_000):
    """Replaces the measurement of a training step, on a device with `limit` bytes of memory."""

    def measured(job, sizes, cases, peers):
        batch = cases[0].batch
        if peak_at(batch) > limit:
            raise accelerator_fast.OutOfMemory
        yield {"batch": batch, "memory_peak_bytes": peak_at(batch), "memory_limit_bytes": limit}

    return measured


@pytest.mark.parametrize(
    ("measured", "batch", "did_not_fit"),
    [
        (a_step(), 928, []),  # 95 % of 1000, in steps of an eighth of the first batch
        (a_step(peak_at=lambda batch: 10 * batch + batch**2 // 100), 544, [736, 640]),  # memory grows faster
        (a_step(limit=1500), 128, [256]),
    ],
)
def test_the_largest_batch_is_found_in_few_tries(monkeypatch, measured, batch, did_not_fit):
    monkeypatch.setattr(accelerator_fast, "_measure_in_turns", measured)
    (row,) = accelerator_fast._largest(job("fast"), accelerator_fast.FULL, "resnet50")
    assert (row["batch"], row["did_not_fit"]) == (batch, did_not_fit)
    assert len(row["tried"]) <= 4


def trace(**planes):
    """A small imitation of ProfileData: planes with lines of events (name, nanoseconds)."""
    lines = {
        name.replace("_", ":"): [
            SimpleNamespace(name=line, events=[SimpleNamespace(name=n, start_ns=0, duration_ns=ns) for n, ns in events])
            for line, events in each.items()
        ]
        for name, each in planes.items()
    }
    return SimpleNamespace(planes=[SimpleNamespace(name=f"/{name}", lines=each) for name, each in lines.items()])


def test_a_traces_kernels_are_those_of_the_device():
    gpu = {"Stream #7": [("conv", 300), ("add", 50), ("conv", 300)], "XLA Modules": [("jit_step", 10_000)]}
    host = {"tf_XLA/1": [("dot.1", 70), ("Foo::bar", 900), ("end: dot.1", 5)], "python": [("main", 5000)]}
    found = accelerator_fast.kernels(trace(device_GPU_0=gpu, host_CPU=host))
    assert found == [
        ("conv", pytest.approx(6e-7), 2),
        ("add", pytest.approx(5e-8), 1),
        ("all", pytest.approx(6.5e-7), 3),
    ]
    tpu = {"Steps": [("0", 999)], "XLA Ops": [("fusion.1", 10)]}
    assert accelerator_fast.kernels(trace(device_TPU_0=tpu))[0] == ("fusion.1", pytest.approx(1e-8), 1)
    assert accelerator_fast.kernels(trace(host_CPU=host))[0] == ("dot.1", pytest.approx(7e-8), 1)
    (last,) = accelerator_fast.kernels(trace(host_CPU={}))
    assert last == ("all", 0, 0)


def test_every_run_is_of_a_recipe_and_its_command_is_understood():
    from flax_resnets.cli.parser import Parser
    from flax_resnets.cli.train import add_arguments
    from flax_resnets.training.recipes import load_config

    parser = Parser("train")
    add_arguments(parser)

    names = [run.name for run in accelerator_results.RUNS]
    assert len(set(names)) == len(names)
    for run in accelerator_results.RUNS:
        for small in (False, True):
            line = accelerator_results.command(job("results", small=small, data_dir=None), run, Path("w"))
            arguments = parser.parse(line[2:])
            config = load_config(arguments.config, arguments.overrides)
            assert config.seed == run.seed
            assert run.precision in (None, config.precision)


def test_packed_data_is_told_of_and_named(tmp_path):
    sets = {"imagenette/160px-v2": {"differs": "JPEGs of 128 px", "fields": {"store_size": "128"}}}
    (tmp_path / "imagenette" / "160px-v2").mkdir(parents=True)
    (tmp_path / "imagenette" / accelerator_results.PACKED).write_text(json.dumps(sets))
    told = job("results", small=False, data_dir=str(tmp_path))
    run = accelerator_results.Run("imagenette_5ep", 3)
    fields, differs, name = accelerator_results._overrides(told, run)
    assert (fields["store_size"], differs, name) == ("128", "JPEGs of 128 px", "imagenette_5ep_packed")
    larger = accelerator_results.Run("rn50_imagenette")
    fields, differs, name = accelerator_results._overrides(told, larger)
    assert fields["dataset"] == "imagenette/160px-v2"
    assert differs == "imagenette/160px-v2 in place of imagenette/320px-v2: JPEGs of 128 px"
    fields, differs, name = accelerator_results._overrides(job("results", data_dir=None, small=False), run)
    assert (fields, differs, name) == ({"seed": "3"}, None, "imagenette_5ep")


def test_a_run_that_the_time_does_not_suffice_for_is_saved_and_goes_on(tmp_path, monkeypatch):
    longer = {"epochs": "8", "save_every": "4", "image_size": "12", "store_size": "12", "batch_size": "100"}
    longer |= {"train_split": "train[:1200]", "validation_split": "test[:200]"}
    monkeypatch.setattr(accelerator_results, "_ON_THE_SAMPLE", accelerator_results._ON_THE_SAMPLE | longer)
    run, told = accelerator_results.RUNS[0], job("results", seconds=900.0, output=str(tmp_path))
    workdir = tmp_path / "workdirs" / "imagenette_5ep" / "seed0"
    with monkeypatch.context() as patch:
        left = property(lambda _: 1.0 if any(workdir.glob("checkpoints/[0-9]*")) else 600.0)
        patch.setattr(Job, "seconds_left", left)
        (row,) = accelerator_results._run_recipe(told, run)
    assert not row["done"]
    assert row["unfinished"] == "the time was up; it is saved, and the same command goes on"
    (again,) = accelerator_results._run_recipe(told, run)
    assert (again["done"], again["epochs"], again.get("unfinished")) == (True, 8, None)
    monkeypatch.setattr(accelerator_results, "_trained", None)  # it is not started a third time
    (last,) = accelerator_results._run_recipe(told, run)
    assert (last["done"], last["accuracy"]) == (True, again["accuracy"])


def test_a_run_that_fails_says_why_in_a_line(tmp_path):
    told = job("results", output=str(tmp_path), data_dir=str(tmp_path), small=True)
    (row,) = accelerator_results._run_recipe(
        told._replace() if hasattr(told, "_replace") else told, accelerator_results.RUNS[0]
    )
    assert row["error"].startswith("ended with exit code 2: train.py: dataset='imagenette/160px-v2")
    assert (row["done"], row["epochs"]) == (False, 0)


# The page.


def network_row(precision="float32, highest", **changes):
    worst = {"logits": 2e-6, "statistics": 1e-7, "gradients": 3e-4, "each gradient": 2e-3}
    about = {"part": "correct", "task": "resnet50", "precision": precision, "worst": worst, "ok": True}
    return {**about, "bound": accelerator_correct.BOUNDS[precision], **ON_A_GPU, **changes}


def lines_with(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


def test_an_empty_page_says_not_measured_of_everything():
    text = page([])
    assert "No accelerator has been measured yet" in text
    for name in (
        *accelerator_correct.NETWORKS,
        *accelerator_correct.RUNS,
        *(run.name for run in accelerator_results.RUNS),
    ):
        assert lines_with(text, f"| {name}", "not measured"), name
    assert len(lines_with(text, "| resnet50 train |", "not measured")) == 3
    assert len(lines_with(text, "| resnet18 inference |", "not measured")) == 9


def test_the_page_has_what_was_measured_last():
    train = {"part": "fast", "task": "resnet50 train", "contender": "ours", "asked_batch": 256, **ON_A_GPU}
    figures = {"batch": 128, "images_per_second": 3012.3, "share_of_peak": 0.31, "memory_peak_bytes": 2**34}
    figures |= {"first_seconds": 41.0, "did_not_fit": [256]}
    run = {"part": "results", "task": "imagenette_5ep seed 1", "done": False, "epochs": 2, "epochs_wanted": 5}
    run |= {"accuracy": 0.7284, "images_per_second": 1500.0, "data": "JPEGs of 128 px", **ON_A_GPU}
    kernel = {"part": "fast", "task": "trace", "rank": 1, "kernel": "a|b", "seconds": 0.001, "share": 0.4, "calls": 3}
    rows = [
        {"part": "machine", "task": "machine", "devices": 1, "cpu": "a CPU", "cores": 16, **ON_A_GPU},
        network_row(error="it failed at first"),
        network_row(),
        network_row("bfloat16", ok=False, worst={**network_row()["worst"], "logits": 0.5}),
        train | {"contender": "torchvision", "skipped": "torch sees no CUDA device here"},
        train | figures,
        kernel | ON_A_GPU,
        run,
    ]
    text = page(rows)
    assert "Measured on NVIDIA H100 80GB HBM3 (1 of them, jax 0.11.2, a CPU, 16 cores)." in text
    (line,) = lines_with(text, "| resnet50 | float32, highest |")
    assert line.endswith("| 2.0e-06 (1.0e-04) | 1.0e-07 (1.0e-04) | 3.0e-04 (1.0e-02) | 2.0e-03 (5.0e-02) | yes |")
    (line,) = lines_with(text, "| resnet50 | bfloat16 |")
    assert "**5.0e-01 (2.0e-02)**" in line
    assert line.endswith("| **no** |")
    (line,) = lines_with(text, "| resnet50 train | ours |")
    assert "| 128 (256 did not fit) | 3,012 | 31.0% | 16.0 GiB | 41.0 s |" in line
    (line,) = lines_with(text, "| resnet50 train | torchvision |")
    assert "no figure: torch sees no CUDA device here" in line
    assert lines_with(text, "`a/b`", "1.000 ms", "40.0%")
    (line,) = lines_with(text, "| imagenette_5ep seed 1 |")
    assert line.endswith("| 72.84% | 2 of 5 | 1,500 | JPEGs of 128 px |")


def test_small_rows_stay_out_of_the_page(tmp_path):
    (tmp_path / "cpu-small.jsonl").write_text(json.dumps(network_row(small=True)) + "\n")
    (tmp_path / "gpu.jsonl").write_text(json.dumps(network_row()) + "\n")
    (row,) = read_all(tmp_path)
    assert row["device"] == ON_A_GPU["device"]
    assert len(latest([row, row], "correct", "precision")) == 1


def test_check_tells_when_the_page_is_old(tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    assert accelerator.main(["--check"], root=tmp_path) == 1
    assert "--page writes it" in capsys.readouterr().err
    assert accelerator.main(["--page"], root=tmp_path) == 0
    assert accelerator.main(["--check"], root=tmp_path) == 0


def test_the_page_in_this_tree_is_what_its_results_say():
    assert accelerator.main(["--check"]) == 0
