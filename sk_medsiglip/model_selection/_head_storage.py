"""Where trials of ``HeadSearchCV`` are kept, and whether they are of this search."""

from __future__ import annotations

import hashlib
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from sk_medsiglip.model_selection._head_trials import SearchData
from sk_medsiglip.model_selection._lasting_names import lasting_name, lasting_repr

__all__ = ["check_same_search", "fingerprint", "open_study"]

#: Seconds between signs of life of a trial on a database, and after how many without
#: one it is run again, and how often that.
HEARTBEAT, GRACE, RETRIES = 10, 60, 3
#: How often opening a database is tried: of several processes one makes its tables.
ATTEMPTS = 10
SQLITE = (".db", ".sqlite", ".sqlite3")
JOURNAL = (".journal", ".jsonl", ".log")


def open_study(where: str | None, name: str, sampler: Any, pruner: Any) -> optuna.Study:
    """Return a study, made if it is not there yet.

    Parameters
    ----------
    where : str or None
        File or URL; None keeps trials in memory.
    name : str
        Of the study.
    sampler, pruner : optuna sampler and pruner
        Of this process.

    Raises
    ------
    ValueError
        If ``where`` is neither a file of a kind known, nor a URL.
    """
    for attempt in range(ATTEMPTS):
        try:
            return optuna.create_study(
                study_name=name,
                storage=None if where is None else _storage(where),
                sampler=sampler,
                pruner=pruner,
                direction="maximize",
                load_if_exists=True,
            )
        except Exception as error:
            # Not imported for its type: SQLAlchemy is Optuna's own affair.
            races = "sqlalchemy" in type(error).__module__ or isinstance(
                error, optuna.exceptions.StorageInternalError
            )
            if not races or attempt + 1 == ATTEMPTS:
                raise
            time.sleep(0.1 * (attempt + 1))
    raise AssertionError  # the loop returns or raises


def fingerprint(
    data: SearchData, scoring: Any, space: Any, seed: int
) -> dict[str, str]:
    """Return what must be the same for two searches to share trials."""
    folds = [part for fold in data.folds for part in fold]
    parts = {
        "X": [data.X],
        "y": [np.asarray(data.y), *([] if data.weight is None else [data.weight])],
        "groups": [] if data.groups is None else [data.groups],
        "cv": folds,
    }
    found = {name: _digest(arrays) for name, arrays in parts.items()}
    return {
        **found,
        "scoring": lasting_name(scoring),
        "space": _digest([np.asarray([lasting_repr(space)])]),
        "random_state": str(seed),
    }


def check_same_search(
    opened: optuna.Study, where: str | None, marks: dict[str, str]
) -> None:
    """Note what a new study is of; refuse to go on with one of something else.

    Raises
    ------
    ValueError
        If the study holds trials of other data, folds, scores or settings.
    """
    known = opened.user_attrs.get("fingerprint")
    if known is None:
        if opened.get_trials(deepcopy=False):
            raise ValueError(
                f"the study {opened.study_name!r} in {where} holds trials of another "
                "program. Give another study_name, or another storage."
            )
        opened.set_user_attr("fingerprint", marks)
        return
    differ = [name for name in marks if known.get(name) != marks[name]]
    if differ:
        raise ValueError(
            f"the study {opened.study_name!r} in {where} was begun with other "
            f"{', '.join(differ)}: its trials say nothing of these. To continue it, "
            "fit with the same; to begin anew, give another study_name, or another "
            "storage."
        )


def _storage(where: str) -> BaseStorage:
    """Return the storage that a path or URL means."""
    url = where if "://" in where else None
    if url is None and not Path(where).absolute().parent.is_dir():
        raise FileNotFoundError(
            f"the folder of storage={where!r} does not exist; make it first."
        )
    if url is None and where.lower().endswith(JOURNAL):
        return JournalStorage(JournalFileBackend(where))
    if url is None and not where.lower().endswith(SQLITE):
        raise ValueError(
            f"storage must be an SQLite file ({', '.join(SQLITE)}), a journal "
            f"({', '.join(JOURNAL)}) or a URL of Optuna's, got {where!r}."
        )
    url = url or f"sqlite:///{where}"
    settings = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RDBStorage(
            url,
            engine_kwargs=settings,
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=(
                optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
            ),
        )


def _digest(arrays: list[NDArray[Any]]) -> str:
    found = hashlib.blake2b(digest_size=12)
    for array in arrays:
        found.update(f"{array.shape}{array.dtype.kind}".encode())
        if array.dtype.kind in "OU":
            found.update(repr(array.tolist()).encode())
        else:
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
