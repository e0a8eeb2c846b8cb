"""Command lines of `python -m flax_resnets`."""

import pytest
from watching import QUICKSTART, short

LONG = "9" * 5000
FIND = ["lr-find", f"--config={QUICKSTART}"]
SHOW = ["show-batch", f"--config={QUICKSTART}"]

COMMANDS: list[tuple[list[str], str]] = [
    ([""], "no such command"),
    (["-"], "-: no such command"),
    (["SUMMARY"], "no such command"),
    (["summary\n"], "no such command"),
    (["\x1b[2J"], r"\x1b[2J: no such command"),
    (["../summary"], "no such command"),
    (["__init__"], "no such command"),
    (["table"], "table: no such command"),
    ([LONG], "no such command"),
    (["summary", "resnet18\0"], "model="),
    (["summary", ""], "model="),
    (["summary", "resnet18", "--depth=-1"], "--depth"),
    (["summary", "resnet18", f"--depth={LONG}"], "--depth"),
    (["summary", "resnet18", "--depth=²"], "--depth"),
    (["summary", "resnet18", "--image-size=1e3"], "--image-size"),
    (["summary", "resnet18", f"--image-size={LONG}"], "--image-size"),
    (["summary", "resnet18", "--channels=0"], "--channels"),
    (["summary", "resnet18", "--num-classes=-1"], "--num-classes"),
    (["summary", "resnet18", "--im=3"], "--im: no such flag"),
    (["summary", "resnet18", "\x1b[2J"], r"\x1b[2J: no such flag"),
    (["models", ""], "no name matches"),
    (["models", "["], "no name matches"),
    (["models", "[[:"], "no name matches"),
    (["models", "*a" * 30 + "b"], "no name matches"),
    (["models", "a\nb\x1b[2J"], r"no name matches a b\x1b[2J"),
    (["lr-find"], "--config"),
    (["lr-find", "--config"], "--config"),
    (["lr-find", "--config=/no/such"], "--config=/no/such: No such file"),
    ([*FIND, "--config.epochs"], "write --config.epochs=VALUE"),
    ([*FIND, "--config.nothing=1"], "no such field"),
    ([*FIND, "--config.model=nothing"], "model='nothing'"),
    ([*FIND, "--config.batch_size=100000"], "batch_size=100000: must be at most the 6000"),
    ([*FIND, "--config.dataset=../x"], "dataset='../x'"),
    ([*FIND, "--config.weight_shards=3000"], "weight_shards=3000"),
    ([*FIND, "--config.learning_rate=__import__('os').mkdir('canary')"], "learning_rate="),
    ([*FIND, "--start=nan"], "--start"),
    ([*FIND, "--start=0"], "--start"),
    ([*FIND, "--start=-1"], "--start"),
    ([*FIND, "--end=inf"], "--end"),
    ([*FIND, "--end=1e-9"], "--end=1e-09: must be above"),
    ([*FIND, "--steps=9"], "--steps"),
    ([*FIND, f"--steps={LONG}"], "--steps"),
    ([*FIND, "--output=/dev/null/x"], "--output=/dev/null/x"),
    ([*FIND, "--output=a\0b"], "--output="),
    ([*FIND, "--output=" + "x" * 300], "--output="),
    (["show-batch"], "--config"),
    ([*SHOW, "--step=-1"], "--step"),
    ([*SHOW, f"--step={LONG}"], "--step"),
    ([*SHOW, "--step=930"], "--step=930: must be below the run's 930 steps"),
    ([*SHOW, "--images=0"], "--images"),
    ([*SHOW, "--images=100000"], "--images=100000: must be at most 128"),
    ([*SHOW, "--config.data_dir=/dev/null", "--config.dataset=mnist"], "data_dir='/dev/null'"),
    ([*SHOW, "--output=/dev/null/x"], "--output=/dev/null/x"),
    ([*SHOW, "--output=a\0b"], "--output="),
    (["bench", "--case=\x1b[2J"], "--case"),
    (["bench", "--rounds=-1"], "--rounds"),
    (["bench", f"--rounds={LONG}"], "--rounds"),
    (["bench", "--turn=inf"], "--turn=inf"),
    (["bench", "--turn=nan"], "--turn=nan"),
    (["bench", "--turn=-1"], "--turn=-1"),
    (["bench", "--torch=/dev/null"], "--torch=/dev/null"),
    (["bench", "--torch=; touch canary"], "--torch=; touch canary"),
    (["bench", "--checkout=/dev/null"], "--checkout=/dev/null"),
    (["bench", "--json=/"], "--json=/"),
    (["bench", "--only=nothing"], "--only"),
]


@pytest.mark.parametrize(("arguments", "named"), COMMANDS, ids=short)
def test_a_command_that_cannot_be(command_refuses, arguments, named):
    command_refuses(arguments, named)
