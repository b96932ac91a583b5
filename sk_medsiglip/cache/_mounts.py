"""Is a folder on a network disk? SQLite must keep another kind of journal there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

# File systems that several machines can have mounted at once. FUSE names what it
# carries behind a point: "fuse.sshfs".
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


def network_file_system(path: Path) -> str | None:
    """Return the type of the network file system that a path is on, else None."""
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
    """Return the type of the file system that a path lies on."""
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
    """Read Linux's table: ``36 35 98:0 /root /point options shared:1 - type ...``."""
    mounts = []
    for line in table.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if separator and len(fields) >= 5:
            mounts.append((_unescape(fields[4]), kinds[0]))
    return mounts


def _parse_mount(listed: str) -> list[tuple[str, str]]:
    """Read what macOS's ``mount`` prints: ``//server/share on /point (smbfs, ...)``."""
    found = re.findall(r"^.* on (/.*) \((\w+)[,)]", listed, flags=re.MULTILINE)
    return [(point, kind) for point, kind in found]


def _unescape(point: str) -> str:
    # The kernel writes space, tab, newline and backslash as octal numbers.
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
