"""libtpu, the TPUs' runtime and compiler, kept quiet on machines that have no TPU."""

import glob
import os

# A TPU shows itself as one of these: up to v4 as the first, from v5e on as the second.
_DEVICE_FILES = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")

_WITHOUT_TPU = {
    # Else it asks the network, at length, on which TPU it runs, and complains on stderr of what it cannot find out.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # One process at a time is a rule for chips; several may compile.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}


def expect_no_tpu() -> None:
    """Tells libtpu not to look for a TPU, by environment variables that it reads when JAX loads it.

    What the user has set stays as it is.
    """
    for name, value in _WITHOUT_TPU.items():
        os.environ.setdefault(name, value)


def has_tpu() -> bool:
    """Whether this machine may have a TPU."""
    return any(glob.glob(pattern) for pattern in _DEVICE_FILES)
