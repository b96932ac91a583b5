"""The answers to a page in the browser; it knows nothing of HTTP.

The state is in the session, its label file and here; a page holds only what is in view,
so that a reload or a second tab shows the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.encoder import is_demonstration
from sk_medsiglip.exceptions import SessionError
from sk_medsiglip.explore._bench import curves, gains_of_texts
from sk_medsiglip.explore._page_view import Asked, PageView
from sk_medsiglip.explore._records import records, texts_by_side
from sk_medsiglip.explore._session import ExploreSession
from sk_medsiglip.explore._task import BLANK, UNSURE

_LARGEST_VIEW = 4096  # bytes
_MOST_NOTES = 20

#: Files to download, with the method of the session that writes each.
_FILES = {
    "labels.csv": "save", "classifier.skops": "save", "figures.csv": "save",
    "report.html": None, "export.parquet": "export", "export.csv": "export",
    "samples.json": "export",
}  # fmt: skip
_NOT_YET = {
    "classifier.skops": "There is no classifier yet: refit first.",
    "figures.csv": "There are no figures yet: refit first.",
    "report.html": "There is no report yet: judging writes it.",
}


class Page(PageView):
    """A session as a page shows it. Callers hold ``lock``, except for pictures."""

    def __init__(self, session: ExploreSession, folder: Path, title: str) -> None:
        super().__init__(session)
        self.folder, self.title = folder, title
        self.quit_server: Callable[[], None] = lambda: None
        self._notes: list[str] = []
        self._judgement: list[dict[str, Any]] | None = None
        self._view: Any = {}

    def note(self, text: str) -> None:
        """Keep a warning, to be shown in the page."""
        if text not in self._notes:
            self._notes = [*self._notes, text][-_MOST_NOTES:]
            self._n_changes += 1

    def state(self, asked: Asked) -> dict[str, Any]:
        """Return the state, or only its number if it is the one that is known."""
        session = self.session
        session.refresh()
        if asked.get("since") == str(self.seq):
            return {"seq": self.seq}
        task = session._task
        locked = session._codes[session.locked]
        groups, file = session.groups, session._file.path
        embedding = self.embedding
        return {
            "seq": self.seq,
            "title": self.title,
            "notes": self._notes,
            "is_demo": is_demonstration(session.embedder.model),
            "labels_file": None if file is None else file.name,
            "folder": self.folder.name,
            "n_rows": len(session.X),
            "n_embedded": int((session._lengths > 0).sum()),
            "n_failed": len(self._unreadable()),
            "is_embedding": embedding is not None and not embedding.is_done,
            "embedding_error": None if embedding is None else embedding.error,
            "seconds_left": None if embedding is None else embedding.seconds_left,
            "columns": session.columns,
            "classes": None if task.classes is None else task.values,
            "values": task.values[::-1] if task.classes is None else task.values,
            "prompts": None
            if session.prompts is None
            else texts_by_side(session.prompts),
            "n_labels": self._count_labels(),
            "n_locked": int(session.locked.sum()),
            "n_groups_locked": None
            if groups is None
            else len(np.unique(groups[session.locked])),
            "n_locked_labelled": int((locked != BLANK).any(axis=1).sum()),
            "n_looks": session.n_looks,
            "is_ended": session.is_ended,
            "can_judge": bool((locked >= 0).any()) and self._can_train(),
            "stage": session.stage_,
            "figures": records(session.figures_),
            "judgement": self._judgement,
            "last_label": self._last_label(),
            "colours": self._map.colours(),
            "has_images": session.images is not None,
            "has_slices": self.thumbnails.has_slices,
            "view": self._view,
            "map": {"id": self._map_id()},
        }

    def set_view(self, asked: Asked) -> dict[str, Any]:
        """Keep what a page has in view, for a reload."""
        if len(json.dumps(asked)) > _LARGEST_VIEW:
            raise ValueError(f"a view has at most {_LARGEST_VIEW} bytes.")
        self._view = asked
        return {}

    def score(self, asked: Asked) -> dict[str, Any]:
        """Try prompts: histogram, ROC curves, and what each text adds."""
        session = self.session
        prompts = self._prompts_of(asked)
        found = session.score(prompts)
        self._map.tried = found.scores
        self._n_changes += 1
        labelled_rows = session._labelled_rows()
        labelled = session._labelled(labelled_rows)
        embedder = MedSigLIPTextEmbedder(**session._text_side())
        return {
            "histogram": records(found.histogram),
            "auc": records(found.auc),
            "roc": curves(labelled, found.scores.iloc[labelled_rows]),
            "texts": gains_of_texts(labelled, prompts, embedder),
            "colour": f"try:{found.scores.columns[0]}",
        }

    def use_prompts(self, asked: Asked) -> dict[str, Any]:
        """Take prompts for the next refit."""
        self.session.use_prompts(self._prompts_of(asked))
        self._n_changes += 1
        return {}

    def label(self, asked: Asked) -> dict[str, Any]:
        """Give rows a label, which is on the disk when this returns."""
        value, session = asked["value"], self.session
        named = {str(one): one for one in session.values}
        value = None if value == "" else named.get(str(value), value)
        session.label(asked["rows"], asked.get("column") or session.columns[0], value)
        return {"seq": self.seq, "n": int(np.size(asked["rows"]))}

    def undo(self, asked: Asked) -> dict[str, Any]:
        """Take the last label back."""
        return {"undone": self.session.undo(), "seq": self.seq}

    def refit(self, asked: Asked) -> dict[str, Any]:
        """Train on the labels so far."""
        found = self.session.refit()
        self._n_changes += 1
        stage = self.session.stage_
        return {"seq": self.seq, "figures": records(found), "stage": stage}

    def end(self, asked: Asked) -> dict[str, Any]:
        """End the training, so that locked rows can be labelled."""
        self._check_complete()
        self.session.end()
        return {"seq": self.seq, "stage": self.session.stage_}

    def judge(self, asked: Asked) -> dict[str, Any]:
        """Evaluate on the locked rows, and write the report and all files."""
        self._check_complete()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._judgement = records(self.session.judge(self.folder))
        self._n_changes += 1
        return {"seq": self.seq, "figures": self._judgement, "files": self._written()}

    def save(self, asked: Asked) -> dict[str, Any]:
        """Write the labels, the classifier and the figures so far."""
        self.session.save(self.folder)
        return {"files": self._written()}

    def file(self, name: str) -> Path:
        """Return a file to download, written now; FileNotFoundError if it cannot be."""
        if name not in _FILES:
            raise FileNotFoundError("There is no such file.")
        path = self.folder / name
        if _FILES[name] == "save":
            self.session.save(self.folder)
        elif _FILES[name] == "export":
            self.folder.mkdir(parents=True, exist_ok=True)
            self.session.export(path)
        if not path.is_file():
            raise FileNotFoundError(_NOT_YET[name])
        return path

    def quit(self, asked: Asked) -> dict[str, Any]:
        """Stop the server, once this is answered."""
        self.quit_server()
        return {}

    def _count_labels(self) -> dict[str, dict[str, int]]:
        """Return the number of rows with each answer, by column."""
        values = {str(value): code for code, value in enumerate(self.session.values)}
        values["unsure"] = UNSURE
        return {
            name: {word: int((codes == code).sum()) for word, code in values.items()}
            for name, codes in zip(
                self.session.columns, self.session._shown.T, strict=True
            )
        }

    def _can_train(self) -> bool:
        session = self.session
        if session.prompts is not None:
            return True
        return bool(session._labelled(session._labelled_rows()).trainable())

    def _check_complete(self) -> None:
        if self.embedding is not None and not self.embedding.is_done:
            left = len(self.session.X) - self.embedding.n_done
            raise SessionError(
                f"{left:,} images are not embedded yet; end when all of them are."
            )

    def _last_label(self) -> dict[str, Any] | None:
        session = self.session
        entry = session._held.last_of(session._file.user)
        if entry is None:
            return None
        return {
            "row": entry["rows"][0],
            "n": len(entry["rows"]),
            "column": entry["column"],
            "value": entry["value"],
        }

    def _prompts_of(self, asked: Asked) -> dict[Any, Any]:
        """Return prompts by the columns or classes of the session, which JSON names."""
        given = asked["prompts"]
        if not isinstance(given, Mapping):
            raise ValueError("prompts must be an object of texts.")
        named = {str(value): value for value in self.session.values}
        return {named.get(name, name): texts for name, texts in given.items()}

    def _written(self) -> list[dict[str, str]]:
        names = [name for name in _FILES if (self.folder / name).is_file()]
        return [{"name": name, "href": f"files/{name}"} for name in names]
