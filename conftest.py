"""For tests and doctests alike: the user's own store and the cores of the machine."""

import os
import tempfile

# Before anything of the package is imported, so that doctests and child processes
# inherit it too: nothing touches the user's own store.
_store = tempfile.TemporaryDirectory(prefix="sk-medsiglip-tests-")
os.environ["SK_MEDSIGLIP_CACHE"] = _store.name
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Workers of pytest-xdist share the cores: where each starts a thread for every core,
# threads of one wait, spinning, while those of another compute. Read on import of
# numpy and torch. Tests of threads set their own number.
_n_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _n_workers > 1:
    _each = max(1, (os.cpu_count() or 1) // _n_workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(_each))
