"""For tests and doctests alike: the user's own store and the cores of the machine."""

import doctest
import gc
import inspect
import os
import sys
import tempfile

import pytest

# Before anything of the package is imported, so that doctests and child processes
# inherit it too: nothing touches the user's own store. Workers of pytest-xdist share
# one, so that each picture meets the model once for all of them.
if "PYTEST_XDIST_WORKER" not in os.environ:
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


def _is_from_module(self, module, object, _before=doctest.DocTestFinder._from_module):
    """Find methods in the room that their public class names as its module."""
    if not inspect.isfunction(object):
        return _before(self, module, object)
    is_method = "." in object.__qualname__
    file_of_room = object.__module__.startswith(f"{module.__name__}._")
    return object.__module__ == module.__name__ or (is_method and file_of_room)


doctest.DocTestFinder._from_module = _is_from_module

# The longest files, longest first: one that is started last keeps a worker busy while
# the others wait.
_LONG_FILES = [
    "tests/distributed/test_distributed_cluster.py",
    "tests/cli/test_cli.py",
    "tests/cli/test_cli_ray.py",
    "tests/model_selection/test_head_search.py",
    "tests/evaluation/test_report.py",
    "tests/test_docs.py",
    "tests/serving/test_serve.py",
    "tests/cli/test_cli_train.py",
    "tests/test_contract.py",
    "tests/test_benchmarks.py",
    "tests/embedding/test_embedding.py",
    "tests/evaluation/test_evaluate.py",
    "tests/encoder/test_openvino.py",
    "tests/encoder/test_encoder.py",
    "tests/cache/test_cache_breakage.py",
    "tests/distributed/test_distributed.py",
    "tests/fine_tuning/test_fine_tuning.py",
    "tests/test_no_network.py",
    "tests/evaluation/test_drawn_names.py",
]


def pytest_collection_modifyitems(items):
    """Run the longest files first; xdist deals files to workers in this order."""
    place = {name: i for i, name in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(place)))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Rest the garbage collector during imports, whose objects live on."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_sessionfinish():
    """Show all objects again: hypothesis looks for those that refer to another."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def _only_new_objects_are_collected():
    """Hide objects made before this file of tests from the garbage collector.

    The imported libraries hold so many that going through them takes a good part of
    the time of small tests; transformers collects garbage in every fit.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _figures_are_closed():
    """Close the figures of a test or an example: matplotlib warns of more than 20."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
