"""libtpu, the runtime and compiler for TPUs, kept quiet on machines without a TPU."""

import glob
import os

# Device files of a TPU: the first up to v4, the second from v5e on.
_DEVICE_FILES = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")

_WITHOUT_TPU = {
    # Without these, it asks the network for a long time which TPU it runs on, and prints errors on stderr.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # A chip allows one process at a time, but several processes may compile.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}


def expect_no_tpu(even_here: bool = False) -> None:
    """Tells libtpu not to look for a TPU, by environment variables that it reads when JAX loads it.

    Where libtpu is installed for `--compile_only`, JAX tries it in training too. Variables that the user has set stay
    as they are.

    Args:
        even_here: also on a machine that may have a TPU, which is otherwise left to be found.
    """
    if even_here or not has_tpu():
        for name, value in _WITHOUT_TPU.items():
            os.environ.setdefault(name, value)


def has_tpu() -> bool:
    """Whether this machine may have a TPU."""
    return any(glob.glob(pattern) for pattern in _DEVICE_FILES)
