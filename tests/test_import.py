"""The CPU time and the modules that `import flax_resnets` costs a program that only needs a network."""

import subprocess
import sys

PROGRAM = """
import sys, time
import jax, flax, flax.linen
started, before = time.process_time(), set(sys.modules)
import flax_resnets
flax_resnets.create_model("resnet18", num_classes=10)
print(time.process_time() - started)
print(*{name.split(".")[0] for name in set(sys.modules) - before})
"""


def test_import_is_quick_and_brings_no_trainer():
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    seconds, modules = out.splitlines()
    assert float(seconds) < 1.5
    heavy = {"tensorflow_datasets", "grain", "orbax", "matplotlib", "tensorboardX", "tensorflow", "torch", "rich"}
    assert not heavy & set(modules.split())
