"""Training with several processes: how a process joins the others, and which process prints and writes.

JAX's multi-controller runtime does the work: every process runs the same program on a mesh of all devices.
"""

import contextlib
import hashlib
import os
import socket

import jax
import numpy as np
from jax.experimental import multihost_utils

from flax_resnets.errors import UserError

# Seconds that an ending process waits for the others to end. A process that fails alone, for example at a broken image
# or a full disk, would otherwise wait long, because the others wait for it in a step. Processes that end together are
# at most seconds apart.
_PATIENCE = 30


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Makes this process one of several. Call it before anything is computed.

    On Cloud TPU, Slurm and Kubernetes JAX finds the other processes by itself. If it finds none, this process trains
    alone.

    Args:
        coordinator: `host:port` at which process 0 listens; None to let JAX find it.
        num_processes: number of processes.
        process_id: number of this process, from 0.

    Raises:
        UserError: the other processes cannot be reached, or process 0 cannot listen at its address.
    """
    try:
        if coordinator is None:
            with contextlib.suppress(ValueError):  # no cluster that JAX knows
                jax.distributed.initialize(shutdown_timeout_seconds=_PATIENCE)
        else:
            # Without a bind address JAX would listen at every address of the host.
            bind_address = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", coordinator)
            if process_id == 0:
                _check_can_listen(bind_address)
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                coordinator_bind_address=bind_address,
                cluster_detection_method="deactivate",
                shutdown_timeout_seconds=_PATIENCE,
            )
    except RuntimeError as error:
        where = f"--coordinator={coordinator}" if coordinator else "this cluster"
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{where}: the processes did not find each other: {reason}") from None


def _check_can_listen(address: str) -> None:
    """Raises UserError if process 0 cannot listen there. JAX starts its service without a check, and would crash."""
    host, _, port = address.rpartition(":")
    try:
        family, *_, where = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(where)
    except (OSError, ValueError) as error:  # ValueError: not a host name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"--coordinator={address}: process 0 cannot listen there: {reason}") from None


def is_first() -> bool:
    """Whether this process prints and writes files: process 0 does."""
    return jax.process_index() == 0


def wait_for_all(where: str) -> None:
    """Waits until every process has called this function with the same `where`. Each call has a name of its own."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def first_text(text: str) -> str:
    """The text of the first process whose text is not empty; empty if all are. Every process must call this.

    Args:
        text: the text of this process. Of a longer one the first 200 bytes are taken.

    Example:
        >>> first_text("the only process's")
        "the only process's"
    """
    if jax.process_count() == 1:
        return text
    padded = np.frombuffer(text.encode()[:200].ljust(200, b"\0"), np.uint8)
    texts = (row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in multihost_utils.process_allgather(padded))
    return next(filter(None, texts), "")


def check_alike(text: str, required: str) -> None:
    """Checks that a text is the same in all processes. Every process must call this.

    Args:
        text: the text of this process.
        required: what must be the same, for the message.

    Raises:
        UserError: the text differs. Every process raises it, with the numbers of the processes whose text is not that
            of process 0.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    differing = [str(number) for number, other in enumerate(digests) if (other != digests[0]).any()]
    if differing:
        raise UserError(f"{required}; process 0 differs from process {', '.join(differing)}")
