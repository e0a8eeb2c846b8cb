"""CONTRIBUTING.md says which files an addition touches. The test adds its example to a copy of the package."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()

PROGRAM = """
import jax, jax.numpy as jnp
from flax_resnets import augment
from flax_resnets.errors import UserError
from flax_resnets.training.recipes import load_config

config = load_config("quickstart", {"grey": "1"})
assert config.grey == 1.0
images = jax.random.randint(jax.random.key(0), (2, 28, 28, 3), 0, 256).astype(jnp.uint8)
seen = augment.for_training(jax.random.key(1), images, config, size=28)
assert jnp.allclose(seen[..., 0], seen[..., 1], atol=1e-2)
off = augment.for_training(jax.random.key(1), images, load_config("quickstart"), size=28)
assert not jnp.allclose(off[..., 0], off[..., 1], atol=1e-2)
try:
    load_config("quickstart", {"grey": "2"})
except UserError as error:
    print(error)
"""


def test_an_augmentation_is_one_file_and_its_name(tmp_path):
    (file,) = re.findall(r"<!-- augmentation: file -->\n```python\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = PAGE.partition("<!-- augmentation: lines -->")[2]
    hunks = re.findall(r"```diff\n(.*?)```", lines, flags=re.DOTALL)
    assert len(hunks) == 2
    copy = tmp_path / "flax_resnets"
    shutil.copytree(ROOT / "flax_resnets", copy, ignore=shutil.ignore_patterns("sample", "__pycache__"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (copy / "augment" / "grey.py").write_text(file)
    pipeline = (copy / "augment" / "pipeline.py").read_text()
    for hunk in hunks:
        before, after = (
            "".join(line[1:] + "\n" for line in hunk.splitlines() if line[0] != sign) for sign in ("+", "-")
        )
        assert pipeline.count(before) == 1
        pipeline = pipeline.replace(before, after)
    (copy / "augment" / "pipeline.py").write_text(pipeline)
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "grey=2.0: must be from 0 to 1\n"


def test_the_files_it_names_exist():
    for path in re.findall(r"`((?:flax_resnets|benchmarks|configs)/[\w/]*(?:\.py)?)`", PAGE):
        assert (ROOT / path).exists() or path == "flax_resnets/augment/grey.py", path
