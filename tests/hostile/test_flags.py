"""Command lines of train.py: unknown flags, impossible values, and text that would control a terminal."""

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made import TEXT
from watching import QUICKSTART, ROOT, short

RECIPE = f"--config={QUICKSTART}"
LONG = "9" * 5000
PLACE = ["--coordinator=127.0.0.1:1234", "--num_processes=2", "--process_id=0"]


def place(**changes: str) -> list[str]:
    values = {"coordinator": "127.0.0.1:1234", "num_processes": "2", "process_id": "0", **changes}
    return [RECIPE, *(f"--{name}={value}" for name, value in values.items())]


# Arguments, and what the line must name.
FLAGS: list[tuple[list[str], str]] = [
    ([""], "takes no further argument"),
    (["-"], "-: no such flag"),
    (["--"], "--: no such flag"),
    (["-c", QUICKSTART], "-c: no such flag"),
    (["--=x"], "--: no such flag"),
    (["=x"], "takes no further argument"),
    (["--CONFIG=x"], "--CONFIG: no such flag"),
    (["--config\n=x"], "no such flag"),
    (["--c\x1b[31mred\x1b[0m"], r"\x1b[31mred"),
    (["--\x07\x08\x7f"], r"--\x07\x08\x7f: no such flag"),
    (["--\u202egnp.exe"], r"--\u202egnp.exe: no such flag"),
    (["--\x9b2J"], r"--\x9b2J: no such flag"),
    (["--\0"], r"--\x00: no such flag"),
    (["--\udcff"], "no such flag"),
    (["--a\r\ntrain.py: done"], "--a train.py: done: no such flag"),
    ([f"--{LONG}"], "no such flag"),
    ([f"--{'x ' * 500}"], "no such flag"),
    (["/etc/passwd"], "takes no further argument: '/etc/passwd'"),
    (["; touch canary"], "takes no further argument: '; touch canary'"),
    (["$(touch canary)"], "takes no further argument: '$(touch canary)'"),
    (["@/etc/passwd"], "takes no further argument: '@/etc/passwd'"),
    ([RECIPE, "train"], "takes no further argument: 'train'"),
    ([RECIPE, "--resume"], "--resume: no such flag"),
    ([RECIPE, "--epochs=1"], "--epochs: no such flag; did you mean --config.epochs=1?"),
    ([RECIPE, "--epochs", "3"], "did you mean --config.epochs=3?"),
    ([RECIPE, "--lr", "0.1"], "did you mean --config.learning_rate=0.1?"),
    ([RECIPE, "--batch-size", "--workdir=x"], "did you mean --config.batch_size=VALUE?"),
    ([RECIPE, "--Seed=\x1b[2J"], r"did you mean --config.seed=\x1b[2J?"),
    ([RECIPE, "--model_options.width=8"], "did you mean --config.model_options.width=8?"),
    ([RECIPE, f"--epochs={LONG}"], "did you mean --config.epochs=999"),
    ([RECIPE, "--workdir=~nobody-of-that-name/run"], "--workdir=~nobody-of-that-name/run: there is no such user"),
    ([RECIPE, "--compile_only=1"], "--compile_only: takes no value: '1'"),
    ([RECIPE, "--compile_only="], "--compile_only: takes no value: ''"),
    (["--config"], "--config: needs a value"),
    (["--config="], "--config=RECIPE is needed"),
    (["--workdir=x"], "--config=RECIPE is needed"),
    ([RECIPE, "--workdir"], "--workdir: needs a value"),
    ([RECIPE, "--workdir="], "--workdir=: needs a value"),
    ([RECIPE, "--workdir", ""], "--workdir=: needs a value"),
    ([RECIPE, "--workdir", "--config.epochs=1"], "--workdir: needs a value"),
    ([RECIPE, "--workdir", "--compile_only"], "--workdir: needs a value"),
    (["--config", "--workdir=x"], "--config: needs a value"),
    ([RECIPE, "--topology", "--compile_only"], "--topology: needs a value"),
    ([RECIPE, "--config."], "--config.: write --config.=VALUE"),
    ([RECIPE, "--config.=1"], "no such field"),
    ([RECIPE, "--config.epochs"], "write --config.epochs=VALUE"),
    ([RECIPE, "--config.epochs", "1"], "write --config.epochs=VALUE"),
    ([RECIPE, "--config.Epochs=1"], "--config.Epochs: no such field; did you mean epochs?"),
    ([RECIPE, "--config. epochs=1"], "no such field"),
    ([RECIPE, "--config.__class__=1"], "--config.__class__: no such field"),
    ([RECIPE, "--config.__init__=1"], "--config.__init__: no such field"),
    ([RECIPE, "--config.to_json=1"], "--config.to_json: no such field"),
    ([RECIPE, "--config.self=1"], "--config.self: no such field"),
    ([RECIPE, "--config.model.name=x"], "--config.model.name: no such field"),
    ([RECIPE, "--config.model_options.=1"], "one option at a time"),
    ([RECIPE, "--config.model_options.a.b=1"], "has no such option"),
    ([RECIPE, "--config.epochs\n=1"], "no such field"),
    ([RECIPE, "--config.\x1b[2Jepochs=1"], r"--config.\x1b[2Jepochs: no such field"),
    ([RECIPE, f"--config.{LONG}=1"], "no such field"),
    ([RECIPE, "--topology=v5e:4x4"], "--topology=v5e:4x4: goes with --compile_only"),
    ([RECIPE, "--topology="], "--topology=: goes with --compile_only"),
    ([RECIPE, "--compile_only", "--topology=../../etc"], "--topology=../../etc: must be"),
    ([RECIPE, "--compile_only", "--topology=v5e"], "--topology=v5e: v5e comes as"),
    ([RECIPE, "--compile_only", "--topology=v5e:"], "--topology=v5e:: v5e comes as"),
    ([RECIPE, "--compile_only", "--topology=v5e:0x0"], "--topology=v5e:0x0: v5e comes as"),
    ([RECIPE, "--compile_only", "--topology=v5e:4x-4"], "--topology=v5e:4x-4: v5e comes as"),
    ([RECIPE, "--compile_only", "--topology=v5e:4\u00d74"], "--topology=v5e:4\u00d74: v5e comes as"),
    ([RECIPE, "--compile_only", "--topology=v4:4x4x1\uff16"], "v4 comes as"),
    ([RECIPE, "--compile_only", "--topology=v4:4x4x9999999999"], "v4 comes as"),
    ([RECIPE, "--compile_only", f"--topology=v4:{LONG}x4x4"], "v4 comes as"),
    ([RECIPE, "--compile_only", "--topology=v4:4x4x4\n"], "v4 comes as"),
    ([RECIPE, "--compile_only", "--topology=\x1b]0;owned\x07"], r"--topology=\x1b]0;owned\x07: must be"),
    ([RECIPE, "--compile_only", "--topology=h100:8"], "--topology=h100:8: must be"),
    (place(coordinator=""), "--coordinator=: must be HOST:PORT"),
    (place(coordinator=":"), "--coordinator=:: must be HOST:PORT"),
    (place(coordinator="127.0.0.1:65536"), "must be HOST:PORT"),
    (place(coordinator="127.0.0.1:-1"), "must be HOST:PORT"),
    (place(coordinator="127.0.0.1:1e3"), "must be HOST:PORT"),
    (place(coordinator="127.0.0.1: 80"), "must be HOST:PORT"),
    (place(coordinator="127.0.0.1:\uff11\uff12\uff13\uff14"), "must be HOST:PORT"),
    (place(coordinator=f"127.0.0.1:{LONG}"), "must be HOST:PORT"),
    (place(coordinator="http://127.0.0.1/"), "must be HOST:PORT"),
    (place(coordinator="a..b:1234"), "--coordinator=a..b:1234"),
    (place(coordinator=f"{'a' * 64}.b:1234"), "--coordinator=aaaa"),
    (place(coordinator="127.0.0.1\0:1234"), r"--coordinator=127.0.0.1\x00:1234"),
    (place(coordinator="host\nname:1234"), "--coordinator=host name:1234"),
    (place(coordinator="\udcff:1234"), "--coordinator="),
    (place(coordinator="203.0.113.1:1234"), "--coordinator=203.0.113.1:1234: process 0 cannot listen there"),
    (place(coordinator="999.1.1.1:1234"), "--coordinator=999.1.1.1:1234"),
    (place(num_processes=""), "--num_processes=: must be"),
    (place(num_processes="0"), "--num_processes=0: must be"),
    (place(num_processes="-2"), "--num_processes=-2: must be"),
    (place(num_processes="2.0"), "--num_processes=2.0: must be"),
    (place(num_processes="\u00b2"), "--num_processes=\u00b2: must be"),
    (place(num_processes="0x2"), "--num_processes=0x2: must be"),
    (place(num_processes=LONG), "--num_processes=999"),
    (place(num_processes="__import__('os')"), "--num_processes=__import__('os'): must be"),
    (place(process_id="2"), "--process_id=2: must be below --num_processes=2"),
    (place(process_id=LONG), "--process_id=999"),
    (place(process_id="0\x1b[1m"), r"--process_id=0\x1b[1m: must be"),
    (place(process_id="None"), "--process_id=None: must be"),
    ([RECIPE, *PLACE[:2]], "goes with --process_id"),
    ([RECIPE, PLACE[1]], "--num_processes=2: goes with --coordinator"),
]


@pytest.mark.parametrize(("arguments", "named"), FLAGS, ids=short)
def test_a_command_line_that_cannot_be(train_refuses, arguments, named):
    train_refuses(arguments, named)


# What a shell sees of some of them, in a process of its own. (NUL and lone surrogates cannot be passed to one.)
IN_A_SHELL: list[list[bytes]] = [
    [b"--\xff\xfe"],
    [b"--config=\xff\n\x1b[2J"],
    [RECIPE.encode(), b"--workdir"],
    [RECIPE.encode(), b"--config.learning_rate=__import__('os').mkdir('canary')"],
]


@pytest.mark.parametrize("arguments", IN_A_SHELL, ids=short)
def test_what_a_shell_sees(sandbox, arguments):
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(sandbox / "home")}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=sandbox / "work", timeout=120)
    assert (done.returncode, done.stdout) == (2, b"")
    line = done.stderr.decode()
    assert line.startswith("train.py: ")
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert list((sandbox / "work").iterdir()) == []


NAMES = ("--config", "--workdir", "--topology", "--compile_only", "--coordinator", "--num_processes", "--process_id")
WORDS = st.one_of(
    TEXT,
    st.sampled_from(NAMES),
    st.builds("{}={}".format, st.sampled_from(NAMES), TEXT),
    st.builds("--config.{}={}".format, TEXT, TEXT),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=st.lists(WORDS.filter(lambda word: word not in ("-h", "--help")), min_size=1, max_size=6))
def test_any_command_line_without_a_recipe_is_refused(train_refuses, arguments):
    train_refuses(arguments)
