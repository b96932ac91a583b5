"""Options of an object store, without their secrets in any repr or pickle."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from typing import Any

#: Parts of the names of options that are shown and pickled. All others may be secret.
_PUBLIC = (
    "region",
    "endpoint",
    "bucket",
    "timeout",
    "allow_http",
    "virtual_hosted",
    "retries",
    "retry",
    "account_name",
)


class StorageOptions(UserDict[str, str]):
    """A mapping that shows and pickles only the options that are not secret.

    A copy in the same process has all of them. Where a pickle is loaded, secrets come
    from the environment.

    >>> StorageOptions({"region": "eu-north-1", "aws_secret_access_key": "abc"})
    {'region': 'eu-north-1', 'aws_secret_access_key': ...}
    """

    # Saved files name the room. It is not a dict, of which skops saves all items.
    __module__ = "sk_medsiglip.retrieval"

    @classmethod
    def around(cls, options: Any) -> Any:
        """Return options as this class; what is no mapping, as it is."""
        if isinstance(options, Mapping) and not isinstance(options, cls):
            return cls(options)
        return options

    @property
    def public(self) -> dict[str, str]:
        """Those that may be seen."""
        return {name: value for name, value in self.items() if _is_public(name)}

    def __repr__(self) -> str:
        shown = [
            f"{name!r}: {value!r}" if _is_public(name) else f"{name!r}: ..."
            for name, value in self.items()
        ]
        return "{" + ", ".join(shown) + "}"

    __str__ = __repr__

    def __deepcopy__(self, memo: Any) -> StorageOptions:
        return self

    def __copy__(self) -> StorageOptions:
        return self

    def __reduce__(self) -> tuple:
        return StorageOptions, (self.public,)


def _is_public(name: Any) -> bool:
    lowered = str(name).lower()
    return any(part in lowered for part in _PUBLIC) and "key" not in lowered
