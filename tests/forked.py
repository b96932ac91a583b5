"""Child processes of tests: forked from a server that has imported everything.

Starting an interpreter with torch and transformers costs seconds of a core, a fork of
the server next to nothing. What a test asks about imports, or what a library reads when
it is imported, still needs an interpreter of its own.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
# The server is one for the whole process of tests, so that its list has to be, too.
context.set_forkserver_preload(
    ["pytest", "peft", "sk_medsiglip.fine_tuning._training", "sk_medsiglip.retrieval"]
)


class Child:
    """Code that runs in a child process; its output is kept in files."""

    def __init__(self, code, *arguments, **environment):
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [Path(self._folder.name, name) for name in ("out", "err")]
        self._process = context.Process(
            target=_execute,
            args=(code, arguments, {**os.environ, **environment}, self._outputs),
        )
        for path in self._outputs:
            path.touch()
        self._process.start()

    def is_running(self):
        return self._process.is_alive()

    def kill(self):
        """End the process if it runs, and remove its output."""
        self._process.kill()
        self._process.join()
        self._folder.cleanup()

    def wait(self, timeout=280):
        """Return the exit code and what was written, as subprocess.run does."""
        self._process.join(timeout)
        code = self._process.exitcode  # None where it still runs
        out, err = (path.read_text() for path in self._outputs)
        self.kill()
        assert code is not None, f"a child process did not end: {err}"
        return subprocess.CompletedProcess([], code, out, err)


def run_code(code, *arguments, **environment):
    """Run code in a child process, with variables set, and wait for its end."""
    return Child(code, *arguments, **environment).wait()


def _execute(code, arguments, environment, outputs):
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    sys.argv = ["-c", *map(str, arguments)]
    exec(compile(code, "<child>", "exec"), {"__name__": "__main__"})
