"""For tests and doctests alike: nothing touches the user's own store."""

import os
import tempfile

# Before anything of the package is imported, so that doctests and child processes
# inherit it too.
_store = tempfile.TemporaryDirectory(prefix="sk-medsiglip-tests-")
os.environ["SK_MEDSIGLIP_CACHE"] = _store.name
os.environ.setdefault("HF_HUB_OFFLINE", "1")
