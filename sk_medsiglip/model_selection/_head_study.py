"""The study behind ``HeadSearchCV``: where trials are kept, who may run another.

A file or database is shared by any number of processes, now or after a stop. What a
trial draws depends on the seed and on its number alone, so it does not matter which
process runs it, nor whether the search was stopped in between.
"""

from __future__ import annotations

import copy
import os
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import optuna
from joblib import Parallel, delayed
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.model_selection._head_sampler import HeadSampler
from sk_medsiglip.model_selection._head_storage import open_study
from sk_medsiglip.model_selection._head_trials import ERROR, TRACEBACK, Objective

__all__ = ["Budget", "HeadStudy", "is_counted", "quiet_optuna"]

#: Seconds between looks at what other processes do.
POLL = 0.3
#: What a trial notes: who runs it, and that there was no room for it.
WORKER, SURPLUS = "worker", "surplus"
#: Runs of this process that go on. Of others its own number says nothing: a process
#: before it may have had it, as in a container that was started again.
_RUNS: set[str] = set()


@dataclass(frozen=True)
class Budget:
    """When to stop.

    Parameters
    ----------
    n_trials : int
        In all, over all processes and stops.
    timeout : float or None
        Seconds after which no trial begins.
    """

    n_trials: int
    timeout: float | None


@dataclass(eq=False)
class HeadStudy:
    """A study, and how to open it in another process.

    Parameters
    ----------
    storage : str or None
        File or URL; None keeps trials in memory.
    name : str
        Of the study.
    seed : int
        Of the sampler.
    sampler, pruner : optuna sampler and pruner, or None
        None for ours.
    first : callable or None
        Settings of first trials, by number.
    """

    storage: str | None
    name: str
    seed: int
    sampler: Any = None
    pruner: Any = None
    first: Callable[[int], dict[str, Any] | None] | None = None
    _study: Any = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_study": None}  # other processes open their own

    def open(self) -> optuna.Study:
        """Return the study, made if it is not there yet."""
        if self._study is None:
            self._study = self._open()
        return self._study

    def _open(self) -> optuna.Study:
        return open_study(
            self.storage,
            self.name,
            copy.deepcopy(self.sampler) or HeadSampler(self.seed, self.first),
            copy.deepcopy(self.pruner)
            or optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
        )

    def run(
        self,
        objective: Objective,
        budget: Budget,
        callbacks: Iterable[Callable[[Any, FrozenTrial], None]],
        n_jobs: int,
        verbose: int,
    ) -> None:
        """Run trials until there are enough."""
        with _progress(self, budget.n_trials, n_jobs, verbose) as shows:
            if n_jobs == 1:
                run_trials(self, objective, budget, [*callbacks, *shows], verbose)
                return
            work = delayed(_run_beside_others)
            Parallel(n_jobs)(
                work(self, objective, budget, list(callbacks), verbose)
                for _ in range(n_jobs)
            )

    def trials(self) -> list[FrozenTrial]:
        """Return all trials, in the order of their numbers."""
        return self.open().get_trials(deepcopy=False)

    def detached(self) -> optuna.Study:
        """Return the study as it is now, in memory: nothing open, fit for a pickle.

        Nor is there anything of the machines that it ran on.
        """
        study = self.open()
        with quiet_optuna(0):
            alone = optuna.create_study(
                study_name=self.name,
                direction="maximize",
                sampler=study.sampler,
                pruner=study.pruner,
            )
            for name, value in study.user_attrs.items():
                alone.set_user_attr(name, value)
            trials = study.get_trials()
            for trial in trials:
                for name in (WORKER, SURPLUS, TRACEBACK):
                    trial.user_attrs.pop(name, None)
            alone.add_trials(trials)
        return alone


def run_trials(
    study: HeadStudy,
    objective: Objective,
    budget: Budget,
    callbacks: list[Callable[[Any, FrozenTrial], None]],
    verbose: int,
) -> None:
    """Run trials in this process, beside others that may do the same."""
    end = np.inf if budget.timeout is None else time.monotonic() + budget.timeout
    with quiet_optuna(verbose), _run_of_this_process() as run:
        opened = study.open()
        full = _Full(opened, objective, budget.n_trials, run)
        while (left := end - time.monotonic()) > 0:
            if not full.reached():
                opened.optimize(
                    full,
                    timeout=None if np.isinf(left) else left,
                    callbacks=[*callbacks, full.stop_if_reached],
                )
                if not full.reached():
                    return  # out of time, or a callback stopped it
            if not full.others_run():
                return
            time.sleep(POLL)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(opened)


def _run_beside_others(
    study: HeadStudy,
    objective: Objective,
    budget: Budget,
    callbacks: list[Callable[[Any, FrozenTrial], None]],
    verbose: int,
) -> None:
    study = copy.copy(study)
    with quiet_optuna(verbose):
        sampler = study.open().sampler
    sampler.reseed_rng()  # a user's own one must not draw the same twice
    run_trials(study, objective, budget, callbacks, verbose)


class _Full:
    """The objective, for as many trials as there may be in all.

    A trial counts those before it that are done or being run: of several processes
    that begin one at the same time, exactly as many go on as there is room for.
    """

    def __init__(
        self, study: optuna.Study, objective: Objective, n: int, run: str
    ) -> None:
        self._study, self._objective, self._n = study, objective, n
        self._worker = _Worker.of_this_process(run)
        self._beats = isinstance(study._storage, RDBStorage) or _wraps_rdb(study)

    def __call__(self, trial: Trial) -> float:
        trial.set_user_attr(WORKER, ":".join(self._worker))
        begun = (TrialState.RUNNING, TrialState.WAITING)
        if self._taken(*begun, before=trial.number) >= self._n:
            trial.set_user_attr(SURPLUS, True)
            trial.study.stop()
            return float("nan")
        return self._objective(trial)

    def reached(self) -> bool:
        """Tell whether there is nothing to run; what waits to be run again is."""
        return self._taken(TrialState.RUNNING) >= self._n

    def stop_if_reached(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if self.reached():
            study.stop()

    def others_run(self) -> bool:
        """Tell whether another process has a trial whose end can be waited for."""
        return any(
            one.state is TrialState.WAITING
            or (one.state is TrialState.RUNNING and (self._beats or _is_near(one)))
            for one in self._study.get_trials(deepcopy=False)
            if not self._is_dead(one)
        )

    def _taken(self, *begun: TrialState, before: float = np.inf) -> int:
        return sum(
            is_counted(one) or (one.state in begun and not self._is_dead(one))
            for one in self._study.get_trials(deepcopy=False)
            if one.number < before
        )

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Tell whether a trial's process is gone; a database finds out by itself."""
        if self._beats or trial.state is not TrialState.RUNNING:
            return False
        return _is_near(trial) and not _lives(trial)


def is_counted(trial: FrozenTrial) -> bool:
    """Tell whether a trial is done: finished, given up, or failed by an error.

    Not those that were interrupted, died, or found no room.
    """
    if trial.state is TrialState.FAIL:
        return ERROR in trial.user_attrs
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


@contextmanager
def quiet_optuna(verbose: int) -> Iterator[None]:
    """Keep Optuna's own log still, unless ``verbose`` is above 1."""
    before = optuna.logging.get_verbosity()
    if verbose <= 1:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def _progress(
    study: HeadStudy, total: int, n_jobs: int, verbose: int
) -> Iterator[list[Callable[[Any, FrozenTrial], None]]]:
    """Show a bar of the trials of all processes; yield what moves it."""
    done = sum(map(is_counted, study.trials()))
    with progress_bar(
        total, desc="trials", unit="trial", verbose=verbose, done=min(done, total)
    ) as bar:

        def show(*_: Any) -> None:
            n = min(sum(map(is_counted, study.trials())), total)
            bar.update(n - bar.n)

        if not verbose:
            yield []
        elif n_jobs == 1:
            yield [show]
        else:
            over = threading.Event()

            def watch() -> None:
                while not over.wait(1.0):
                    show()

            thread = threading.Thread(target=watch, daemon=True)
            thread.start()
            try:
                yield []
            finally:
                over.set()
                thread.join()
                show()


def _wraps_rdb(study: optuna.Study) -> bool:
    return isinstance(getattr(study._storage, "_backend", None), RDBStorage)


class _Worker(NamedTuple):
    """Who runs a trial; the parts are strings, empty where they are not known."""

    host: str
    process: str
    start: str
    run: str

    @classmethod
    def of_this_process(cls, run: str) -> Self:
        process = str(os.getpid())
        return cls(socket.gethostname(), process, _start_of(process), run)

    @classmethod
    def of_trial(cls, trial: FrozenTrial) -> Self:
        parts = trial.user_attrs.get(WORKER, "").split(":")
        return cls(*[*parts, "", "", ""][:4])


@contextmanager
def _run_of_this_process() -> Iterator[str]:
    """Note that a run goes on, under a name of its own."""
    run = secrets.token_hex(4)
    _RUNS.add(run)
    try:
        yield run
    finally:
        _RUNS.discard(run)


def _start_of(process: str) -> str:
    """Return when a process began, as Linux counts it; empty where that is not told."""
    try:
        told = Path("/proc", process, "stat").read_text(errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""
    # The program's name, in brackets, may hold spaces. After it come fields 3 to 52;
    # the 22nd is ticks of a clock that begins when the machine does.
    return f"{boot[:8]}-{told.rpartition(')')[2].split()[19]}"


def _is_near(trial: FrozenTrial) -> bool:
    """Tell whether a trial was begun on this machine."""
    return _Worker.of_trial(trial).host in ("", socket.gethostname())


def _lives(trial: FrozenTrial) -> bool:
    """Tell whether the process of a trial on this machine is there."""
    _, process, start, run = _Worker.of_trial(trial)
    if not process:  # begun a moment ago, or died within that
        started = trial.datetime_start
        return started is not None and time.time() - started.timestamp() < 10
    if process == str(os.getpid()):
        return run in _RUNS
    if os.name == "nt":  # there, asking for a process would end it
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # Another process may have its number by now.
    return not start or _start_of(process) in ("", start)
