"""Starts JAX on the devices of this machine, describes them, and finds an accelerator that is not used."""

import glob
import importlib.util
import os
import subprocess
import sys
from functools import cache

import jax

from flax_resnets.errors import UserError
from flax_resnets.machine import cores
from flax_resnets.training.tpu.libtpu import has_tpu

# If an NVIDIA GPU has its driver loaded, there are files of these names.
_NVIDIA = ("/proc/driver/nvidia/gpus/*", "/dev/nvidia[0-9]*")


def start_jax() -> None:
    """Makes JAX look for devices.

    Raises:
        UserError: JAX does not find the devices that the environment asks for; or the environment sets
            `JAX_ENABLE_X64`, or flags that XLA does not know.
    """
    if jax.config.read("jax_enable_x64"):  # the state would have other dtypes, so the run could not resume elsewhere
        raise UserError("JAX_ENABLE_X64=1: a run computes in its precision, float32 at most; unset it")
    _check_xla_flags()
    try:
        jax.devices()
    except Exception as error:  # RuntimeError, AssertionError of a plug-in that is not installed, and others
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:250]
        asked = [f"{name}={os.environ[name]}" for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.getenv(name)]
        right = (
            'unset it to use the devices here; NVIDIA GPUs need pip install -e ".[train,cuda]", TPUs ".[train,tpu]"'
            if asked
            else "JAX_PLATFORMS=cpu uses the CPU"
        )
        raise UserError(f"{' '.join(asked) or 'JAX'}: finds no such device here ({reason}); {right}") from None


def _check_xla_flags() -> None:
    """Raises UserError for unknown XLA flags. XLA ends a process that has them, so another process tries them first."""
    flags = os.environ.get("XLA_FLAGS", "")
    if not flags.strip() or has_tpu():  # the TPU compiler has flags of its own
        return
    if reason := _why_xla_ends(flags):
        raise UserError(f"XLA_FLAGS={flags}: {reason[:250]}; XLA would end the process; remove the flag")


@cache  # for a program that starts many runs
def _why_xla_ends(flags: str) -> str:
    """What XLA says against these flags of the environment, or an empty text."""
    program = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    complaint = [line for line in done.stderr.splitlines() if "XLA_FLAGS" in line]
    return complaint[-1].rpartition("] ")[2] if done.returncode and complaint else ""


def devices_in_words() -> str:
    """Describes the devices, such as `8 TPU v5 lite devices of 2 processes`, or `1 CPU device of 2 cores`."""
    devices, processes = jax.devices(), jax.process_count()
    on_cpu = devices[0].platform == "cpu"
    count = len(devices)
    words = f"{count} {'CPU' if on_cpu else devices[0].device_kind} device{'s' if count > 1 else ''}"
    if processes > 1:
        return f"{words} of {processes} processes"
    number = cores()
    return f"{words} of {number} core{'s' if number > 1 else ''}" if on_cpu else words


def idle_accelerator() -> str | None:
    """A message if JAX runs on the CPU although this machine has an accelerator; otherwise None."""
    if jax.default_backend() != "cpu":
        return None
    if any(glob.glob(pattern) for pattern in _NVIDIA):
        kind, extra, plugins = "an NVIDIA GPU", "cuda", ("jax_cuda12_plugin", "jax_cuda13_plugin")
    elif has_tpu():
        kind, extra, plugins = "a device that may be a TPU", "tpu", ("libtpu",)
    else:
        return None
    if asked := os.environ.get("JAX_PLATFORMS"):
        return f"{kind} is here and not used: JAX_PLATFORMS={asked}"
    if any(map(_installed, plugins)):
        return f"{kind} is here and not used: JAX could not start it; see what JAX_PLATFORMS={extra} says"
    return f'{kind} is here and not used: JAX has no support for it installed; pip install -e ".[train,{extra}]"'


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
