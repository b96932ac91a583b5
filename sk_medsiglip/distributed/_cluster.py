"""Ray itself: connecting, starting, quieting it, and how many encoders fit."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sk_medsiglip._optional import import_optional
from sk_medsiglip._warning import quiet_logger
from sk_medsiglip.embedding import ModelFacts
from sk_medsiglip.encoder import image_batch_sizes

#: Shared memory in bytes of a Ray that is started here; further blocks wait.
_OBJECT_STORE_BYTES = 2 * 2**30

#: Seconds that a cluster may take to answer.
_CONNECT_SECONDS = 10.0

#: Cores beyond which one pass of a large model gains little.
_MOST_THREADS = 8

#: Blocks that an encoder works on at a time: one computes while others are written.
_CALLS_GPU, _CALLS_CPU = 3, 2

#: CPUs that an encoder reserves: it computes on cores that reading leaves free, and
#: must keep no task from running, since only tasks bring it work. Not zero, so that it
#: does not go to a head node that offers no CPU.
_ENCODER_CPUS = 0.01


@dataclass(frozen=True)
class Pool:
    """Number of encoders, and the resources that each takes."""

    least: int
    most: int
    n_threads: int
    n_gpus: int
    calls: int
    n_cores: int

    @property
    def resources(self) -> dict[str, float]:
        """Resources that an encoder reserves, in the names of Ray."""
        return {"num_gpus": 1} if self.n_gpus else {"num_cpus": _ENCODER_CPUS}


def ray_module() -> Any:
    """Return the library ray, or say how to install it."""
    ray = import_optional("ray", extra="ray", purpose="Embedding on a cluster")
    with warnings.catch_warnings():
        # Ray warns of fields that Ray itself sets.
        warnings.simplefilter("ignore", DeprecationWarning)
        import_optional("ray.data", extra="ray", purpose="Embedding on a cluster")
        ray.data.DataContext.get_current()
    return ray


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Yield Ray, connected; end what was started or connected here afterwards."""
    ray = ray_module()
    if ray.is_initialized():
        # Ray has one cluster a process. An invalid address is still refused.
        if address not in (None, "local", "auto"):
            _check_address(address)
        yield ray
        return
    # A hospital's work must not be reported to a company's server.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        "configure_logging": False,
    }
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    # This logger reports each time that only this user's processes may join.
    with quiet_logger("ray._private.authentication"):
        if address == "local":
            ray.init(
                "local",
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **options,
            )
        else:
            _check_address(address)
            ray.init(address, **options)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise at once for an address that Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if address.startswith(("http://", "https://")):
        raise ValueError(
            f"{address} is an address of a dashboard. Give that of the cluster itself, "
            'such as "10.0.0.1:6379"; on a machine of the cluster it is "auto".'
        )
    if address.startswith("ray://"):
        raise ValueError(
            f"{address} is an address of Ray Client, over which Ray Data does not "
            "work. Run this on a machine of the cluster, for instance by ray job "
            'submit, with the address "auto".'
        )
    if address == "auto":
        address = _address_of_this_machine()
        host, _, port = address.rpartition(":")
    if not address or "://" in address:
        return
    if not host or not port.isdigit():
        raise ValueError(
            f"{address!r} is not the address of a Ray cluster. Give a machine and a "
            'port, such as "10.0.0.1:6379"; "auto" for the cluster of this machine; or '
            '"local" to start one here.'
        )
    try:
        socket.create_connection(
            (host.strip("[]"), int(port)), _CONNECT_SECONDS
        ).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}). Start one with: ray start "
            '--head; or say "local" to start one on this machine.'
        ) from None


def _address_of_this_machine() -> str:
    """Return the address that "auto" means here, or "" if Ray itself reports an error.

    A cluster that ended without saying so leaves its address behind, and Ray would try
    that for minutes.
    """
    try:
        from ray._private.services import get_ray_address_from_environment

        return str(get_ray_address_from_environment("auto", None) or "")
    except (ImportError, TypeError, ConnectionError):
        return ""


@contextmanager
def quiet_context(target_block_bytes: int, may_lose: int) -> Iterator[None]:
    """Make settings of Ray Data for one job, and keep it from talking."""
    ray = ray_module()
    data = ray.data
    context = data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = target_block_bytes
    context.max_errored_blocks = may_lose
    # Number of times in a row that an actor is replaced which dies while loading.
    context.max_consecutive_actor_init_deaths = 3
    handlers = [
        (handler, handler.level)
        for handler in logging.getLogger("ray.data").handlers
        if type(handler).__name__ == "PlainRayHandler"
    ]
    for handler, _ in handlers:
        handler.setLevel(logging.CRITICAL)
    try:
        with data.DataContext.current(context), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="ray")
            # Ray warns of its own use of retired parameters.
            warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
            yield
    finally:
        for handler, level in handlers:
            handler.setLevel(level)


def choose_pool(
    concurrency: int | tuple[int, int] | str, device: str, facts: ModelFacts
) -> Pool:
    """Return the encoders that the cluster as it is now has room for."""
    nodes = [node["Resources"] for node in ray_module().nodes() if node["Alive"]]
    gpus = 0 if device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not gpus and not cores:
        raise ValueError(
            "the cluster offers neither a GPU nor a CPU. Start worker nodes: "
            "ray start --address=HEAD:6379"
        )
    is_light = image_batch_sizes(facts.n_patches, "cpu")[0] > 1
    share = 1 if is_light or not cores else min(_MOST_THREADS, max(cores))
    room = gpus or sum(max(1, n // share) for n in cores)
    least, most = _as_range(concurrency, room)
    if not gpus and concurrency != "auto":
        share = max(1, min(sum(cores) // most, max(cores)))
    if gpus:
        return Pool(least, most, share, 1, _CALLS_GPU, max(1, sum(cores)))
    # A light model has a pass of one core for each of its cores, and one block more.
    calls = share + 1 if is_light else _CALLS_CPU
    return Pool(least, most, share, 0, calls, sum(cores))


def _as_range(concurrency: int | tuple[int, int] | str, room: int) -> tuple[int, int]:
    if isinstance(concurrency, tuple):
        return concurrency
    n = room if isinstance(concurrency, str) else concurrency
    return n, n
