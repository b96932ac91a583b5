"""Searches on a cluster: Ray's joblib backend, with every array sent once.

Ray's own backend sends each task a copy of its arrays. This one finds arrays while a
task is pickled, also inside objects, puts each into the object store once, and lets the
workers of a node map it.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import parallel_config, register_parallel_backend

from sk_medsiglip._warning import quiet_logger
from sk_medsiglip.distributed._cluster import connected, ray_module

_NAME = "ray-sharing-arrays"

#: Maximum number of seconds to wait for a thread of a pool.
_SECONDS_TO_END = 10

#: Size in bytes from which an array is shared.
_SHARED_BYTES = 100_000


@dataclass
class RayTraffic:
    """Amount of data sent from this process to the workers.

    Parameters
    ----------
    n_tasks : int
        Number of calls, or of batches of calls.
    task_bytes : int
        Size of the calls: functions, small arguments, references to arrays.
    n_arrays : int
        Number of arrays put into the object store, each once, whatever the number of
        tasks.
    array_bytes : int
        Size of these arrays.
    """

    n_tasks: int = 0
    task_bytes: int = 0
    n_arrays: int = 0
    array_bytes: int = 0


@contextmanager
def parallel_on_ray(
    address: str | None = None, *, n_jobs: int = -1
) -> Iterator[RayTraffic]:
    """Run everything that takes ``n_jobs`` on a Ray cluster.

    Inside this context Ray runs the tasks of ``GridSearchCV``, ``HeadSearchCV``,
    ``label_efficiency``, ``cross_val_score`` and everything else that uses joblib. An
    array that several tasks need is sent once, and the workers of a node share it.

    Parameters
    ----------
    address : str or None, default=None
        Address of the cluster, as ``ray_address`` of :func:`embed_dataset`.
    n_jobs : int, default=-1
        Number of workers where an estimator's own ``n_jobs`` is None; -1 is one for
        each CPU of the cluster.

    Yields
    ------
    RayTraffic
        Amount of data sent so far.

    Raises
    ------
    MissingDependencyError
        If Ray is not installed.

    Notes
    -----
    Workers get arrays that they cannot write to, as joblib's memory maps are.

    Pipelines that start from images look into the embedding cache of the node that
    they run on. Pass the embedder a ``cache=`` folder that all nodes see, filled by
    :func:`import_embeddings`, or search on embeddings. ``HeadSearchCV`` sends the folds
    of one trial at a time. ``evaluate`` has no tasks to send: it computes all resamples
    at once.

    Examples
    --------
    Not run here, since it starts a cluster::

        import numpy as np
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV
        from sk_medsiglip.distributed import parallel_on_ray

        X = np.random.default_rng(0).normal(size=(300, 192)).astype(np.float32)
        search = GridSearchCV(LogisticRegression(), {"C": [0.01, 1.0]})
        with parallel_on_ray(n_jobs=2) as traffic:
            search = search.fit(X, X[:, 0] > 0)
        traffic.n_tasks, traffic.n_arrays, traffic.array_bytes == X.nbytes
        # (10, 1, True)
    """
    traffic = RayTraffic()
    # This logger warns of an argument that joblib always passes.
    quiet = quiet_logger("ray.util.multiprocessing.pool")
    with connected(address), quiet:
        register_parallel_backend(_NAME, _backend_class())
        with parallel_config(
            backend=_NAME,
            n_jobs=n_jobs,
            traffic=traffic,
            # Not on nodes that offer no CPU.
            ray_remote_args={"num_cpus": 1},
        ):
            try:
                yield traffic
            finally:
                _join_threads_of_pools()


def _join_threads_of_pools() -> None:
    """Wait for the threads of Ray's pools, which end soon after their results.

    One that asks for results after Ray is disconnected starts a new Ray by itself.
    """
    from ray.util.multiprocessing.pool import ResultThread

    for thread in threading.enumerate():
        if isinstance(thread, ResultThread):
            thread.join(_SECONDS_TO_END)


def _backend_class() -> type:
    """Return the backend class; its base class needs Ray."""
    from ray.util.joblib.ray_backend import RayBackend

    class SharingRayBackend(RayBackend):
        """Ray's backend, whose tasks share their arrays."""

        # Results come one by one, by callbacks, though Ray's class inherits False.
        supports_return_generator = True

        def __init__(
            self, *args: Any, traffic: RayTraffic | None = None, **kwargs: Any
        ) -> None:
            super().__init__(*args, **kwargs)
            self._shared = _SharedArrays(traffic or RayTraffic())

        def submit(self, func: Any, callback: Any = None) -> Any:
            return super().submit(_Call(*self._shared.pack(func)), callback)

        def terminate(self) -> None:
            super().terminate()
            self._shared.clear()

    return SharingRayBackend


@dataclass(frozen=True)
class _Call:
    """A task: its pickle, and references to the arrays that were left out of it."""

    text: bytes
    references: Sequence[Any]

    def __call__(self) -> Any:
        arrays = ray_module().get(list(self.references))
        return _Unpickler(io.BytesIO(self.text), arrays).load()()


class _SharedArrays:
    """Arrays in the object store, by their address in this process's memory."""

    def __init__(self, traffic: RayTraffic) -> None:
        self._traffic = traffic
        # joblib submits from the threads in which results arrive, too.
        self._lock = threading.Lock()
        # The array itself is kept, so that its address is not used again.
        self._known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def pack(self, func: Callable[[], Any]) -> tuple[bytes, list[Any]]:
        """Return a pickle of ``func`` without its arrays, and references to these."""
        with self._lock:
            stream = io.BytesIO()
            pickler = _pickler_class()(stream, self._put)
            pickler.dump(func)
            text = stream.getvalue()
            self._traffic.n_tasks += 1
            self._traffic.task_bytes += len(text)
            return text, pickler.references

    def clear(self) -> None:
        """Release all arrays."""
        with self._lock:
            self._known.clear()

    def _put(self, array: Any) -> Any:
        place = (
            array.__array_interface__["data"][0],
            array.shape,
            array.strides,
            array.dtype.str,
        )
        if place not in self._known:
            self._known[place] = array, ray_module().put(array)
            self._traffic.n_arrays += 1
            self._traffic.array_bytes += array.nbytes
        return self._known[place][1]


def _pickler_class() -> Any:
    from ray import cloudpickle

    class Pickler(cloudpickle.CloudPickler):
        """Pickles all but large arrays."""

        def __init__(self, stream: Any, put: Callable[[Any], Any]) -> None:
            super().__init__(stream)
            self._put = put
            self.references: list[Any] = []

        def persistent_id(self, thing: Any) -> int | None:
            # Subclasses may mean more than their numbers; objects are pickled anyway.
            is_shared = (
                type(thing) in (np.ndarray, np.memmap)
                and thing.nbytes >= _SHARED_BYTES
                and not thing.dtype.hasobject
            )
            if not is_shared:
                return None
            reference = self._put(thing)
            if reference not in self.references:
                self.references.append(reference)
            return self.references.index(reference)

    return Pickler


class _Unpickler(pickle.Unpickler):
    """Read a pickle of ``Pickler``; a worker runs code of its driver anyway."""

    def __init__(self, stream: Any, arrays: Sequence[Any]) -> None:
        super().__init__(stream)
        self._arrays = arrays

    def persistent_load(self, number: int) -> Any:
        return self._arrays[number]
