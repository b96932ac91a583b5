"""A real Ray cluster on this machine, one process tree a node, and ways to hurt it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sk_medsiglip.exceptions import ImageReadError

# Read when ray is imported: no reports to its makers, no colours, no C++ chatter.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

MEGABYTE = 2**20

#: A dead node is noticed within seconds, not half a minute.
IMPATIENT = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


#: A file of this name ends whatever process opens it, as a fault in a decoder would.
DEADLY = "deadly.png"

_SITE = f"""
import os, sys

def watch(event, args):
    if event == "open" and str(args[0]).endswith({DEADLY!r}):
        os.abort()

sys.addaudithook(watch)
"""


@contextmanager
def running_cluster(folder, n_workers=2, cpus=1):
    """Give a cluster of a head without CPUs and some worker nodes."""
    from ray.cluster_utils import Cluster

    # Nodes inherit it, and their workers, and what these start.
    (folder / "sitecustomize.py").write_text(_SITE)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *sys.path])

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": 200 * MEGABYTE,
            "_system_config": IMPATIENT,
        },
    )
    try:
        for _ in range(n_workers):
            add_node(cluster, cpus)
        yield cluster
    finally:
        cluster.shutdown()
        del os.environ["PYTHONPATH"]


def add_node(cluster, cpus=1):
    return cluster.add_node(num_cpus=cpus, object_store_memory=200 * MEGABYTE)


def raylet_of(node):
    (process,) = node.all_processes["raylet"]
    return process.process


def kill_node(cluster, node):
    """End a worker node as a power cut does."""
    raylet = raylet_of(node)
    children = children_of(raylet.pid)
    os.kill(raylet.pid, signal.SIGKILL)
    for pid in children:
        kill(pid)
    raylet.wait()
    # What is left of it on this machine; the cluster has to find out by itself.
    cluster.remove_node(node, allow_graceful=False)


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def children_of(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def encoders_of(node):
    """Return the processes of a node that hold a model."""
    found = []
    for pid in children_of(raylet_of(node).pid):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"ShardEncoder" in title:
            found.append(pid)
    return found


def start_driver(address, source, out, *, n_block=8, **options):
    """Run a job in a process of its own, in blocks so small that there are many."""
    script = f"""
        import json
        from sk_medsiglip.distributed import _job, embed_dataset
        _job._BLOCK_PATCHES_CPU = {64 * n_block}
        _job._COMMIT_SECONDS = 0.2
        report = embed_dataset(
            {source!r}, {os.fspath(out)!r}, model="demo",
            ray_address={address!r}, **{options!r},
        )
        print(json.dumps(vars(report)))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def report_of(driver):
    """Wait for a job to end; return its report."""
    out, err = driver.communicate(timeout=280)
    assert driver.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def wait_until(happened, process, *, seconds=120):
    """Wait for something that a job brings about; fail if the job ends before."""
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Deadly:
    """Reads as ``Reader.prepare`` does, and dies of one source.

    It is here since other processes import the file that it is in.
    """

    def prepare(self, source):
        if source == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if source == "bad":
            raise ImageReadError("it is bad")
        return source.encode(), np.zeros((2, 2, 3), np.uint8)
