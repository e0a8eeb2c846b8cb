"""benchmarks/records/results.py on made-up runs: which it adds, which it refuses, and what it writes."""

import json
import shutil
import statistics
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.records import results
from flax_resnets.training.config import Config
from flax_resnets.training.metrics import EpochMetrics, MetricsLog
from flax_resnets.training.recipes import load_config
from flax_resnets.training.timeline import Timeline

ROOT = Path(__file__).parents[2]


def finished(
    workdir: Path,
    seed: int = 0,
    accuracies=(0.5, 0.7, 0.6),
    *,
    of: int | None = None,
    ended_by: str | None = None,
    ema: bool = False,
    speed: float = 32.0,
    **fields,
) -> Path:
    """A workdir as train.py leaves it: 10 steps of 64 images an epoch, at `speed` images a second.

    With `of`, the run has more epochs than there are accuracies, as after a stop.
    """
    config = Config(
        model="resnet18", dataset="noise", data_dir="/somewhere", image_size=32, mean=(0.5,), std=(0.5,),
        batch_size=64, epochs=of or len(accuracies), learning_rate=1e-3, seed=seed, **fields,
    )  # fmt: skip
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(config.to_json())
    log = MetricsLog(workdir, Timeline(10))
    log.start(0)
    for epoch, accuracy in enumerate(accuracies, start=1):
        row = EpochMetrics(
            epoch=epoch,
            step=10 * epoch,
            train_loss=2.0 / epoch,
            valid_loss=2.1 / epoch,
            accuracy=accuracy,
            top5_accuracy=0.9,
            seconds=640 / speed,
            images_per_second=speed,
            skipped_steps=0,
            **({"ema_valid_loss": 2.0, "ema_accuracy": accuracy + 0.05} if ema else {}),
        )
        log.add_epoch(row)
    if of is None or ended_by:
        log.finish(f"digest {seed} {accuracies}", ended_by)
    return workdir


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a command line on an empty tree: its exit code and its output, on stdout or stderr."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        code = results.main([str(argument) for argument in arguments], root=tmp_path)
        captured = capsys.readouterr()
        assert not (captured.out and captured.err)
        return code, (captured.out or captured.err).strip()

    return call


@pytest.fixture
def add(run):
    def call(workdir: Path, *options: str) -> None:
        code, said = run("--add", workdir, "--recipe", "noise", *options)
        assert code == 0, said

    return call


def cells(tmp_path: Path) -> list[str]:
    (line,) = [line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("| [")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_this_repositorys_table_is_up_to_date():
    assert results.main(["--check"]) == 0


def test_a_run_that_lost_rows_is_refused(tmp_path, run):
    path = finished(tmp_path / "a", accuracies=(0.5, 0.6, 0.7)) / "metrics.jsonl"
    first, _, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, *others]))
    code, said = run("--add", path.parent, "--recipe", "noise")
    assert (code, "must have a row for each epoch so far" in said) == (2, True)


def test_two_seeds_become_a_row(tmp_path, run, add):
    add(finished(tmp_path / "a", seed=0, accuracies=(0.5, 0.72, 0.7)), "--hardware", "two abaci")
    add(finished(tmp_path / "b", seed=1, accuracies=(0.4, 0.6, 0.71)), "--hardware", "two abaci")
    (tmp_path / "results" / "references.json").write_text(
        json.dumps({"noise": {"accuracy": 0.655, "source": "someone's blog"}})
    )
    assert run()[0] == 0
    machine = json.loads((tmp_path / "results/noise/seed1/machine.json").read_text())
    assert cells(tmp_path) == [
        "[noise](results/noise/curves.png)",
        "65.50 % (someone's blog)",
        f"**70.50 ± {100 * statistics.stdev([0.7, 0.71]):.2f} %**",
        "72.00 %",
        "2",
        "3",
        "60 s",
        f"two abaci, jax {machine['versions']['jax']}",
        "",
    ]
    with Image.open(tmp_path / "results/noise/curves.png") as picture:
        assert picture.format == "PNG"


def test_a_run_so_far_leaves_room_for_its_rest(tmp_path, run, add, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    add(finished(tmp_path / "a", accuracies=(0.5,), of=4), "--so-far")
    run()
    for axes in figures[0].axes:
        assert axes.get_xlim() == (0.5, 4.5)
        assert [tick for tick in axes.get_xticks() if 0.5 < tick < 4.5] == [1, 2, 3, 4]


def test_one_seed_has_no_spread_and_names_the_cpu(tmp_path, run, add):
    add(finished(tmp_path / "a"))
    run()
    _, reference, last, best, seeds, _, _, hardware, _ = cells(tmp_path)
    assert (reference, last, best, seeds) == ("", "**60.00 %**", "70.00 %", "1")
    machine = json.loads((tmp_path / "results/noise/seed0/machine.json").read_text())
    assert hardware == f"{machine['cpu']}, {machine['cores']} cores, jax {machine['versions']['jax']}"
    assert list(machine) == ["hardware", "data", "cpu", "cores", "python", "versions"]


def test_a_run_from_elsewhere_keeps_the_machine_that_came_with_it(tmp_path, add):
    """A machine.json from benchmarks/accelerator.py is kept; the command line can replace its words."""
    run = finished(tmp_path / "home")
    machine = {"hardware": "NVIDIA H100", "data": "JPEGs of 128 px", "cpu": "theirs", "cores": 16}
    machine |= {"python": "3.12.3", "versions": {"jax": "0.11.2", "flax": "0.12", "optax": "0.2"}}
    (run / "machine.json").write_text(json.dumps(machine))
    add(run)
    kept = tmp_path / "results/noise/seed0/machine.json"
    assert json.loads(kept.read_text()) == machine
    add(run, "--hardware", "one H100")
    assert json.loads(kept.read_text()) == machine | {"hardware": "one H100"}


def test_times_on_different_hardware_are_means_of_their_own(tmp_path, run, add):
    for seed, (hardware, speed) in enumerate([("one abacus", 16.0), ("two abaci", 32.0), ("one abacus", 8.0)]):
        add(finished(tmp_path / str(seed), seed=seed, speed=speed), "--hardware", hardware)
    run()
    jax = "jax " + json.loads((tmp_path / "results/noise/seed0/machine.json").read_text())["versions"]["jax"]
    *_, time, hardware, _ = cells(tmp_path)
    assert (time, hardware) == ("3 min; 60 s", f"one abacus, {jax}; two abaci, {jax}")


def test_a_part_of_the_data_is_told(tmp_path, run, add):
    add(finished(tmp_path / "a"), "--data", "2,000 of 50,000 images")
    run()
    assert cells(tmp_path)[-1] == "on 2,000 of 50,000 images"


def test_what_is_kept_is_the_run_without_where_its_data_lay(tmp_path, add):
    workdir = finished(tmp_path / "a")
    add(workdir)
    kept = tmp_path / "results/noise/seed0"
    assert sorted(path.name for path in kept.iterdir()) == ["config.json", "machine.json", "metrics.jsonl"]
    assert (kept / "metrics.jsonl").read_bytes() == (workdir / "metrics.jsonl").read_bytes()
    theirs, ours = (json.loads((path / "config.json").read_text()) for path in (workdir, kept))
    assert ours == {**theirs, "data_dir": None}


def test_averaged_weights_and_mirror_images_are_named(tmp_path, run, add):
    add(finished(tmp_path / "a", ema=True, eval_flip=True))
    run()
    notes = cells(tmp_path)[-1]
    assert notes == (
        "evaluated with each image and its mirror image (`eval_flip`); "
        "the weights' average (EMA), last epoch: 65.00 %"
    )  # fmt: skip


def test_an_epoch_gone_on_with_counts_whole(tmp_path):
    workdir = finished(tmp_path / "a")
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rows[1]["seconds"] = 5.0  # only of its last quarter, after a stop
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert results.read_run(workdir).seconds == pytest.approx(60)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(59.6, "60 s"), (99.6, "2 min"), (5940, "99 min"), (6000, "1 h 40 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds, words):
    assert results._duration(seconds) == words


def test_check_sees_what_is_out_of_date(tmp_path, run, add):
    assert run("--check") == (0, "")  # neither runs nor a table
    add(finished(tmp_path / "a"))
    out_of_date = (1, "results.py: RESULTS.md is out of date; `python -m benchmarks.records.results` writes it")
    assert run("--check") == out_of_date
    run()
    assert run("--check") == (0, "")
    add(finished(tmp_path / "b", seed=1))
    assert run("--check") == out_of_date
    shutil.rmtree(tmp_path / "results")
    assert run("--check") == out_of_date


def test_without_runs_nothing_is_written(tmp_path, run):
    assert run() == (2, "results.py: results/ holds no run; --add WORKDIR --recipe NAME adds one")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_finished_is_refused(tmp_path, run):
    code, said = run("--add", finished(tmp_path / "a", of=10), "--recipe", "noise")
    assert code == 2
    assert said.startswith(f"results.py: {tmp_path / 'a'}: is not finished")
    assert "\n" not in said
    assert not (tmp_path / "results").exists()


def test_a_run_is_shown_as_far_as_it_got(tmp_path, run, add):
    add(finished(tmp_path / "a", accuracies=(0.5, 0.7), of=3), "--so-far")
    run()
    assert cells(tmp_path)[2:7] == ["**70.00 %**", "70.00 %", "1", "2 of 3", "40 s"]
    code, said = run("--add", finished(tmp_path / "b", accuracies=(0.5, 0.8), of=3), "--recipe", "noise", "--so-far")
    assert code == 2
    assert "seed0: holds the first 2 epochs of another run; --replace replaces them" in said
    code, said = run("--add", finished(tmp_path / "c", seed=1), "--recipe", "noise")
    assert (code, said) == (2, "results.py: noise: has runs of 2 and 3 epochs; they cannot be averaged")
    # The whole run replaces its beginning.
    add(finished(tmp_path / "d"))
    run()
    assert cells(tmp_path)[2:7] == ["**60.00 %**", "70.00 %", "1", "3", "60 s"]
    code, said = run("--add", tmp_path / "a", "--recipe", "noise", "--so-far")
    assert code == 2
    assert "holds a run with state_digest" in said


def test_runs_that_ended_early_are_averaged_and_named(tmp_path, run, add):
    add(finished(tmp_path / "a", accuracies=(0.5, 0.7, 0.6), of=9, ended_by="patience", patience=1))
    add(finished(tmp_path / "b", seed=1, accuracies=(0.5, 0.4), of=9, ended_by="patience", patience=1))
    run()
    assert cells(tmp_path)[2:6] == ["**50.00 ± 14.14 %**", "70.00 %", "2", "3 of 9"]
    assert cells(tmp_path)[-1] == "ended by patience after 3, 2 epochs"


def test_another_run_of_the_same_seed_goes_only_by_replace(tmp_path, run, add):
    add(finished(tmp_path / "a"))
    kept = tmp_path / "results/noise/seed0/metrics.jsonl"
    before = kept.read_bytes()
    add(tmp_path / "a", "--hardware", "an abacus")  # the same run again
    other = finished(tmp_path / "b", accuracies=(0.5, 0.6, 0.8))
    code, said = run("--add", other, "--recipe", "noise")
    assert code == 2
    assert "holds a run with state_digest digest 0 (0." in said
    assert kept.read_bytes() == before
    add(other, "--replace")
    assert kept.read_bytes() == (other / "metrics.jsonl").read_bytes()


def test_a_recipe_has_one_configuration(tmp_path, run, add):
    add(finished(tmp_path / "a", seed=0))
    code, said = run("--add", finished(tmp_path / "b", seed=1, weight_decay=0.05), "--recipe", "noise")
    assert (code, said) == (
        2,
        "results.py: noise: has runs with weight_decay=0.01 and 0.05; give one of them another recipe name",
    )
    add(finished(tmp_path / "c", seed=2, log_every=7))
    run()
    # A run of a version without the field had the field's default, so its value does not differ.
    for path in (tmp_path / "results/noise").glob("*/config.json"):
        config = json.loads(path.read_text())
        del config["eval_flip"]
        path.write_text(json.dumps(config))
    assert run("--check") == (0, "")
    code, said = run("--add", finished(tmp_path / "d", seed=3, eval_flip=True), "--recipe", "noise")
    assert (code, "eval_flip=False and True" in said) == (2, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--add nowhere --recipe noise", "nowhere/config.json: No such file or directory"),
        ("--add nowhere", "--add: needs --recipe NAME"),
        ("--add nowhere --recipe ../up", "--recipe=../up: must be the name of a recipe"),
        ("--replace", "--recipe, --hardware, --data, --replace and --so-far go with --add WORKDIR"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, line, message):
    code, said = run(*line.split())
    assert code == 2
    assert said.startswith(f"results.py: {message}")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "{}"),
        ("metrics.jsonl", "no rows"),
        ("metrics.jsonl", '{"event": "epoch"}\n{"event": "done", "state_digest": ""}'),
    ],
)
def test_a_damaged_file_is_named(tmp_path, run, name, content):
    workdir = finished(tmp_path / "a")
    (workdir / name).write_text(content)
    code, said = run("--add", workdir, "--recipe", "noise")
    assert code == 2
    assert said.startswith(f"results.py: {workdir / name}: ")
    assert "\n" not in said


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/*/seed*/config.json")), ids=lambda path: path.parts[-3])
def test_a_published_run_is_its_recipes(path):
    """The command in a row repeats its run with the recipe of today, except for the seed and what changes no number."""
    theirs = {**results.DEFAULTS, **json.loads(path.read_text())}
    ours = json.loads(load_config(ROOT / "configs" / f"{path.parts[-3]}.py").to_json())
    differing = {name for name in ours if theirs[name] != ours[name]}
    assert differing <= set(results._MAY_DIFFER)
