"""Files of a checkpoint on the Hugging Face hub.

A commit in the local hub cache is used without a request to the network, so that a run
is reproducible and works offline. A newer commit is fetched if ``revision`` names it.
"""

from __future__ import annotations

from pathlib import Path

from sk_medsiglip.exceptions import CheckpointError, ModelAccessError

# Pickles such as pytorch_model.bin are never downloaded.
_SMALL_FILES = ["*.json", "*.model", "*.txt"]
_WEIGHT_FILES = [*_SMALL_FILES, "*.safetensors"]


def hub_folder(model: str, revision: str | None, *, weights: bool) -> Path:
    """Return the snapshot folder of a hub checkpoint, downloading missing files."""
    commit = _cached_commit(model, revision)
    if commit is not None:
        folder = _snapshot(model, commit, weights=weights, offline=True)
        if folder is not None and (not weights or _has_weights(folder)):
            return folder
    folder = _snapshot(model, commit or revision, weights=weights, offline=False)
    assert folder is not None
    return folder


def _cached_commit(model: str, revision: str | None) -> str | None:
    """Return the commit in the local hub cache, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        # A repository of an adapter has no config.json.
        found = [
            try_to_load_from_cache(model, name, revision=revision)
            for name in ("config.json", "adapter_config.json")
        ]
    except HFValidationError:
        raise CheckpointError(
            f"model={model!r} is neither a folder on this machine nor the name of a "
            'hub repository ("owner/name"). Pass model="demo", '
            'model="google/medsiglip-448", or the path of a checkpoint folder.'
        ) from None
    files = [one for one in found if isinstance(one, str)]
    return Path(files[0]).parent.name if files else None


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _snapshot(
    model: str, revision: str | None, *, weights: bool, offline: bool
) -> Path | None:
    from huggingface_hub import errors, snapshot_download

    wanted = _WEIGHT_FILES if weights else _SMALL_FILES
    try:
        return Path(
            snapshot_download(
                model,
                revision=revision,
                allow_patterns=wanted,
                local_files_only=offline,
            )
        )
    except errors.GatedRepoError as error:
        raise ModelAccessError(_gated_message(model)) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelAccessError(_not_found_message(model)) from error
    except (errors.RevisionNotFoundError, errors.RevisionResolutionError) as error:
        raise ModelAccessError(
            f"{model} has no revision {revision!r}. Pass a commit, branch or tag from "
            f"https://huggingface.co/{model}/commits, or revision=None for the newest."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        if offline:
            return None
        raise ModelAccessError(_no_network_message(model, revision)) from error
    except (OSError, ConnectionError) as error:
        raise ModelAccessError(_no_network_message(model, revision)) from error


def _gated_message(model: str) -> str:
    return (
        f"{model} is gated: its owner asks you to accept terms once. Open "
        f"https://huggingface.co/{model}, accept them, then log in on this machine "
        "with: hf auth login\n"
        "Without internet: copy the checkpoint's folder here and pass its path, "
        'model="/path/to/checkpoint".'
    )


def _not_found_message(model: str) -> str:
    return (
        f"{model} is not on the hub, or it is private and you are not logged in. Check "
        f"the name at https://huggingface.co/{model}; if the page opens, accept its "
        "terms there and log in on this machine with: hf auth login"
    )


def _no_network_message(model: str, revision: str | None) -> str:
    at = "" if revision is None else f" at revision {revision!r}"
    commits = commits_here(model)
    here = ""
    if commits:
        named = " or ".join(f"revision={one!r}" for one in commits)
        here = f" Other commits are available here: pass {named}."
    folder = model.rpartition("/")[2]
    return (
        f"{model}{at} is not on this machine and the hub cannot be reached (no "
        f"network, or HF_HUB_OFFLINE is set).{here} On a machine with internet, run: "
        f"hf download {model} --local-dir {folder}\n"
        f"then copy the folder {folder} to this machine and pass its path, "
        'model="/path/to/checkpoint"; or try the toolkit with model="demo".'
    )


def commits_here(model: str) -> list[str]:
    """Return the commits of a repository in the hub cache, complete or not."""
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE, f"models--{model.replace('/', '--')}")
    found = (repository / "snapshots").glob("*/*config.json")
    return sorted({path.parent.name for path in found})


def is_downloaded(model: str) -> bool:
    """Return whether a hub checkpoint and its weights are on this machine.

    Parameters
    ----------
    model : str
        Repository, such as ``"google/medsiglip-448"``. The network is not used.

    Returns
    -------
    bool
    """
    commit = _cached_commit(model, None)
    if commit is None:
        return False
    folder = _snapshot(model, commit, weights=True, offline=True)
    return folder is not None and _has_weights(folder)


def check_hub_access(model: str) -> None:
    """Ask the hub whether this account may download a checkpoint.

    Parameters
    ----------
    model : str
        Repository. Nothing is downloaded.

    Raises
    ------
    ModelAccessError
        If access is refused, or the hub cannot be reached.
    """
    from huggingface_hub import auth_check, errors

    try:
        auth_check(model)
    except errors.GatedRepoError as error:
        raise ModelAccessError(_gated_message(model)) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelAccessError(_not_found_message(model)) from error
    except Exception as error:
        # The client of the hub passes on errors of its HTTP library.
        raise ModelAccessError(
            f"Access to {model} on the hub cannot be checked: {error}. Check the "
            "network, and that HF_HUB_OFFLINE is not set."
        ) from error
