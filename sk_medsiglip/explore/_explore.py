"""``explore``: a session in the browser."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import ArrayLike

from sk_medsiglip._embeddings import is_matrix
from sk_medsiglip._optional import import_optional
from sk_medsiglip._warning import warn_user
from sk_medsiglip._web import LOOPBACK, TERMS
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.embedding import MedSigLIPEmbedder
from sk_medsiglip.explore._growing import GrowingSession
from sk_medsiglip.explore._session import ExploreSession
from sk_medsiglip.images import image_rows

if TYPE_CHECKING:
    from sk_medsiglip.explore._server import PageServer

_N_PHANTOMS = 400
_PHANTOM_PROMPTS = {
    "effusion": {
        "positive": [
            "this radiograph demonstrates pleural effusion",
            "fluid has collected in the pleural space",
        ],
        "negative": [
            "this radiograph demonstrates no pleural effusion",
            "no fluid has collected in the pleural space",
        ],
    }
}


def explore(
    X: Any = None,
    *,
    images: Sequence[Any] | None = None,
    frame: pd.DataFrame | None = None,
    groups: ArrayLike | None = None,
    prompts: Mapping[Any, Any] | None = None,
    label: str | Sequence[str] | None = None,
    classes: Sequence[Any] | None = None,
    locked: float | ArrayLike | pd.DataFrame | None = None,
    labels_path: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | MedSigLIPEmbedder = "google/medsiglip-448",
    random_state: int = 0,
    user: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    title: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    password: str | None = None,
    open_browser: bool = True,
    block: bool | None = None,
) -> PageServer:
    """Label images, train on them and judge the result, in the browser.

    A server on this machine shows a map of the images, those to label next, and how
    good the classifier is after every refit. Without ``X`` and ``images`` it shows
    drawn phantoms with the demonstration checkpoint, and downloads nothing.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features), images or ExploreSession
        Embeddings, where rows of NaN are unreadable images; or images as
        :meth:`~sk_medsiglip.MedSigLIPEmbedder.transform` takes them, which are embedded
        while the page is in use; or a session, with its own parameters.
    images : sequence of n_samples objects, default=None
        Images by row number, where ``X`` are embeddings. Without them the page has no
        pictures.
    frame, groups, prompts, label, classes, locked, random_state, user
        Parameters of :class:`ExploreSession`.
    labels_path : path-like, default=None
        File of the labels. By default ``labels.jsonl`` in ``folder``.
    model : str, path-like or MedSigLIPEmbedder, default="google/medsiglip-448"
        Model, or the embedder with its parameters, which also says how images are read.
    folder : path-like, default=None
        Folder of the results, made if it does not exist. By default ``explore``, and
        ``explore-phantoms`` for phantoms.
    title : str, default=None
        Title of the page. By default, the name of the folder of the images.
    host : str, default="127.0.0.1"
        Address to listen on. By default only this machine can connect. Any other needs
        a ``password``; what passes is not encrypted.
    port : int, default=0
        Port to listen on; 0 takes a free one.
    password : str, default=None
        Password that the page asks for. By default, the address holds a token that
        opens it once.
    open_browser : bool, default=True
        Whether to open the page in a browser, where there is a screen.
    block : bool, default=None
        Whether to return only after Ctrl-C, or when the page ends the server. By
        default, except in a notebook.

    Returns
    -------
    PageServer
        With ``url``, the address; ``session``, the :class:`ExploreSession`; and
        ``stop()``. In a notebook it is shown as a link.

    Raises
    ------
    MissingDependencyError
        If the extra ``explore`` is not installed.
    ModelAccessError, CheckpointError
        If the model is not available.
    SessionError
        If the label file belongs to other images or another question.
    ValueError
        If parameters do not fit each other, or ``password`` is missing.
    AddressError
        If the address or port is not valid, or the port is taken.

    Warns
    -----
    UserWarning
        If ``host`` lets other machines in.

    See Also
    --------
    ExploreSession : The same without a browser.

    Notes
    -----
    Labels are on the disk before the page shows them. The address that is printed opens
    the page once, in one browser, which keeps a cookie; whoever can read neither can do
    nothing with the port. While the server runs, leave its session to the page.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from sk_medsiglip.explore import explore
    >>> with TemporaryDirectory() as folder:
    ...     server = explore(folder=folder, open_browser=False, block=False)
    ...     server.stop()
    Explore: open http://127.0.0.1:...
    >>> server.session.columns
    ['effusion']
    """
    import_optional("starlette", extra="explore", purpose="The page")
    import_optional("uvicorn", extra="explore", purpose="The page")
    from sk_medsiglip.explore._embedding import BackgroundEmbedding
    from sk_medsiglip.explore._page import Page
    from sk_medsiglip.explore._server import PageServer

    if host not in LOOPBACK:
        if not password:
            raise ValueError(
                f"host={host!r} lets other machines in, so pass password= too."
            )
        warn_user(TERMS, UserWarning)
    if X is None and images is None:
        X, groups, prompts = _phantoms()
        locked, model = 0.25 if locked is None else locked, "demo"
        folder = folder or "explore-phantoms"
        title = title or "Drawn chest phantoms"
    results = Path(folder or "explore")
    session = X
    if not isinstance(X, ExploreSession):
        if labels_path is None:
            results.mkdir(parents=True, exist_ok=True)
            labels_path = results / "labels.jsonl"
        how: dict[str, Any] = {
            "frame": frame, "groups": groups, "prompts": prompts, "label": label,
            "classes": classes, "locked": locked, "labels_path": labels_path,
            "random_state": random_state, "user": user,
        }  # fmt: skip
        if X is not None and is_matrix(X):
            session = ExploreSession(X, images=images, model=model, **how)
        else:
            if not isinstance(model, MedSigLIPEmbedder):
                model = MedSigLIPEmbedder(model)
            rows = image_rows(images if X is None else X)
            session = GrowingSession(rows, model, **how)
    page = Page(session, results, title or _title(session))
    server = PageServer(page, host, port, password)
    if isinstance(session, GrowingSession):
        page.embedding = BackgroundEmbedding(session, page.lock)
    _say(server)
    in_thread = _in_notebook() if block is None else not block
    if open_browser:
        server.open_browser()
    server.start() if in_thread else server.run()
    return server


def _phantoms() -> tuple[Any, Any, Any]:
    """Return images, patients and prompts, which are the same at every start."""
    drawn = make_chest_phantoms(_N_PHANTOMS, random_state=0)
    return list(drawn.images), drawn.groups, _PHANTOM_PROMPTS


def _title(session: ExploreSession) -> str:
    paths = session.paths
    return (Path(paths[0]).absolute().parent.name if paths else "") or "Images"


def _say(server: PageServer) -> None:
    """Write the address to standard output: it is what the user asked for."""
    file = server.session._file.path
    kept = "in memory only" if file is None else f"in {file}"
    sys.stdout.write(
        f"Explore: open {server.url}\nLabels are kept {kept}. Stop with Ctrl-C.\n"
    )
    sys.stdout.flush()


def _in_notebook() -> bool:
    """Tell whether this runs in a kernel, where a cell must come to an end."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")
