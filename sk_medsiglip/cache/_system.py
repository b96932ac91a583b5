"""The operating system: location of the store, permissions, locks.

There are two kinds of locks, because POSIX has two. A *file lock* (``flock``) belongs
to one opening of a file, and is independent of other openings in the same process. A
*byte lock* (``lockf``) belongs to the process and to one byte, so that one file is
enough for a billion claims. It is lost as soon as the process closes *any* handle on
that file, so exactly one handle must be kept. Both end with their process.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from sk_medsiglip.exceptions import CacheError

CONVERTED = "converted"
ENVIRONMENT_VARIABLE = "SK_MEDSIGLIP_CACHE"
FOLDER_MODE = 0o700
FILE_MODE = 0o600


# File systems that several machines can mount at the same time. The name of a FUSE
# system follows a point: "fuse.sshfs".
_NETWORK_TYPES = frozenset(
    "9p acfs afpfs afs beegfs ceph cifs coda davfs efs gfs gfs2 glusterfs gpfs lustre "
    "mmfs ncpfs nfs nfs4 ocfs2 orangefs panfs prl_fs pvfs2 smb smb2 smb3 smbfs vboxsf "
    "virtiofs vmhgfs webdav wekafs".split()
)
_NETWORK_FUSE = frozenset(
    "beegfs blobfuse blobfuse2 ceph ceph-fuse curlftpfs cvmfs2 davfs davfs2 gcsfuse "
    "glusterfs goofys gvfsd-fuse juicefs lizardfs mfs moosefs mount-s3 quobyte rclone "
    "s3fs seaweedfs smbnetfs sshfs vmhgfs-fuse".split()
)


def resolve_location(given: str | None) -> Path:
    """Return the given folder, that of the environment, or that of the user."""
    chosen = given or os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    try:
        return platformdirs.user_cache_path("sk_medsiglip") / "embeddings"
    except RuntimeError as error:
        raise CacheError(
            "this user has no home directory, in which the embedding cache would be. "
            f"Set {ENVIRONMENT_VARIABLE} to a folder, or pass cache=."
        ) from error


def make_folder(folder: Path, *, inside: bool = False) -> None:
    """Create a folder that only its owner can enter; parents are created as usual.

    An existing folder keeps its permissions, since it may be shared on purpose. New
    folders ``inside`` the store are then shared as well.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if inside:
        share(folder)


def open_file(path: Path, flags: int) -> int:
    """Open a file of the store; a new file is shared like its folder."""
    # os.open rather than open(), which warns about handles that are not closed.
    fd = os.open(path, flags, FILE_MODE)
    if flags & os.O_CREAT:
        share(path)
    return fd


def share(path: Path) -> None:
    """Share a new file or folder with everybody who may write to its parent."""
    folder = path.parent.stat()
    group, everybody = folder.st_mode & stat.S_IWGRP, folder.st_mode & stat.S_IWOTH
    if not (group or everybody) or sys.platform == "win32":
        return
    mode = FILE_MODE | (0o060 if group else 0) | (0o006 if everybody else 0)
    # This fails if another user shared the file, or if it does not exist.
    with suppress(OSError):
        if path.is_dir():
            mode = folder.st_mode & 0o3777
        if not everybody:
            os.chown(path, -1, folder.st_gid)
        os.chmod(path, mode)


if sys.platform == "win32":
    import msvcrt

    # Windows does not let others read a locked byte, so the byte that represents the
    # whole file is beyond the end of every file.
    WHOLE_FILE = 2**30

    def lock_byte(fd: int, offset: int) -> bool:
        """Lock one byte if it is free; return whether it is locked now."""
        os.lseek(fd, offset, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock_byte(fd: int, offset: int) -> None:
        """Unlock one byte."""
        os.lseek(fd, offset, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

    def lock_file(fd: int, *, wait: bool = False) -> bool:
        """Lock the file of this handle; return whether it is locked now."""
        while not (locked := lock_byte(fd, WHOLE_FILE)) and wait:
            time.sleep(0.01)
        return locked

else:
    import fcntl

    def lock_byte(fd: int, offset: int) -> bool:
        """Lock one byte if it is free; return whether it is locked now."""
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError as error:
            # Other errors mean that there is no lock service, as on some network
            # mounts. Computing a row twice is better than not at all.
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True

    def unlock_byte(fd: int, offset: int) -> None:
        """Unlock one byte."""
        with suppress(OSError):  # without a lock service, no lock is held
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)

    def lock_file(fd: int, *, wait: bool = False) -> bool:
        """Lock the file of this handle; return whether it is locked now."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the lock of a file for a ``with`` block.

    The lock belongs to this opening of the file, and ends with the process.

    Parameters
    ----------
    path : Path
        The file, which is created if it is missing.

    Yields
    ------
    None
    """
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        lock_file(fd, wait=True)
        yield
    finally:
        os.close(fd)


def network_file_system(path: Path) -> str | None:
    """Return the type of the network file system of a path, else None."""
    there = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    there = Path(os.path.realpath(there))
    if sys.platform == "win32":
        return _windows_share(there)
    try:
        if sys.platform == "darwin":
            listed = subprocess.run(
                ["/sbin/mount"], capture_output=True, text=True, timeout=5, check=True
            )
            mounts = _parse_mount(listed.stdout)
        else:
            table = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
            mounts = _parse_mountinfo(table)
    except (OSError, subprocess.SubprocessError):
        return None
    found = find_file_system(mounts, str(there))
    return found if found is not None and _is_network(found) else None


def find_file_system(mounts: list[tuple[str, str]], path: str) -> str | None:
    """Return the type of the file system of a path."""
    best, found = -1, None
    for point, kind in mounts:
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), kind
    return found


def _is_network(kind: str) -> bool:
    kind = kind.lower()
    if kind.startswith(("fuse.", "fuseblk.")):
        return kind.partition(".")[2] in _NETWORK_FUSE
    return kind in _NETWORK_TYPES


def _parse_mountinfo(table: str) -> list[tuple[str, str]]:
    """Parse Linux's table: ``36 35 98:0 /root /point options shared:1 - type ...``."""
    mounts = []
    for line in table.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if separator and len(fields) >= 5:
            mounts.append((_unescape(fields[4]), kinds[0]))
    return mounts


def _parse_mount(listed: str) -> list[tuple[str, str]]:
    """Parse the output of macOS: ``//server/share on /point (smbfs, ...)``."""
    found = re.findall(r"^.* on (/.*) \((\w+)[,)]", listed, flags=re.MULTILINE)
    return [(point, kind) for point, kind in found]


def _unescape(point: str) -> str:
    # The kernel escapes space, tab, newline and backslash as octal numbers.
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)


def _windows_share(path: Path) -> str | None:
    if sys.platform != "win32":
        return None
    import ctypes

    if path.drive.startswith("\\\\"):
        return "unc"
    remote = 4  # DRIVE_REMOTE
    kind = ctypes.windll.kernel32.GetDriveTypeW(f"{path.drive}\\")
    return "remote drive" if kind == remote else None
