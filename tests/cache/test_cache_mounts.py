"""Network disks: found in tables of mounts, and given a journal that is safe there."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from test_cache import SPACE, fingerprint, read, vectors_of

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.cache import _index as index_module
from sk_medsiglip.cache import _system as mounts
from sk_medsiglip.cli import app

LINUX = """\
22 28 0:20 / /proc rw,nosuid shared:12 - proc proc rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
31 28 0:26 / /tmp rw - tmpfs tmpfs rw,size=8g
40 28 0:44 / /home rw,relatime shared:30 - nfs4 files:/export/home rw,vers=4.2
41 40 259:3 / /home/local rw,relatime - xfs /dev/sdb1 rw
42 28 0:45 / /mnt/share rw,relatime - cifs //server/share rw,vers=3.1.1
43 28 0:46 / /mnt/two\\040words rw - nfs server:/x rw,vers=3
44 28 0:47 / /mnt/ssh rw,nosuid - fuse.sshfs me@host:/data rw
45 28 0:48 / /mnt/ntfs rw - fuseblk /dev/sdc1 rw
46 28 0:49 / /mnt/appimage ro - fuse.appimage app ro
47 28 0:50 / /lustre/scratch rw - lustre 10.0.0.1@o2ib:/scratch rw
48 28 0:51 / /gpfs rw - gpfs fs1 rw
49 28 0:52 / /beegfs rw - beegfs beegfs_nodev rw
50 28 0:53 / /ceph rw - ceph mon1,mon2:/ rw
51 28 0:54 / /host rw - 9p host rw,trans=virtio
52 28 0:55 / /gluster rw - fuse.glusterfs vol rw
53 28 0:56 / /smb3 rw - smb3 //server/x rw
54 28 0:57 / /afs rw - afs AFS rw
55 28 0:58 / /net rw - autofs /etc/auto.net rw,fd=5
56 55 0:59 / /net/files rw - nfs4 files:/ rw
57 28 0:60 / /covered rw - nfs4 files:/a rw
58 57 0:61 / /covered rw - tmpfs tmpfs rw
59 28 0:62 / /merged rw - overlay overlay rw,lowerdir=/a,upperdir=/b
60 28 0:44 /project /bound rw,relatime shared:30 - nfs4 files:/export/home rw
61 28 0:63 / /mnt/back\\134slash\\011tab rw - cifs //s/t rw
a line that is none of these
62 28 0:64 / /mnt/s3 rw propagate_from:2 master:3 - fuse.mount-s3 mountpoint-s3 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", None),
        ("/data/cache", None),
        ("/tmp/x", None),
        ("/home/me/.cache/sk_medsiglip", "nfs4"),
        ("/home", "nfs4"),
        ("/homework", None),
        ("/home/local/me", None),
        ("/mnt/share/store", "cifs"),
        ("/mnt/two words/store", "nfs"),
        ("/mnt/two", None),
        ("/mnt/ssh", "fuse.sshfs"),
        ("/mnt/ntfs/x", None),
        ("/mnt/appimage/x", None),
        ("/lustre/scratch/me", "lustre"),
        ("/gpfs/me", "gpfs"),
        ("/beegfs/me", "beegfs"),
        ("/ceph/me", "ceph"),
        ("/host/me", "9p"),
        ("/gluster/me", "fuse.glusterfs"),
        ("/smb3/me", "smb3"),
        ("/afs/cell", "afs"),
        ("/net", None),
        ("/net/files/x", "nfs4"),
        ("/covered/x", None),
        ("/merged/x", None),
        ("/bound/x", "nfs4"),
        ("/mnt/back\\slash\ttab/x", "cifs"),
        ("/mnt/s3/x", "fuse.mount-s3"),
    ],
)
def test_linux_table(path, kind):
    found = mounts.find_file_system(mounts._parse_mountinfo(LINUX), path)
    assert found is not None
    assert (found if mounts._is_network(found) else None) == kind


MACOS = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse)
//me@server._smb._tcp.local/share on /Volumes/share (smbfs, nodev, nosuid)
files:/export on /Volumes/on two (nfs)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/Users/me", None),
        ("/System/Volumes/Data/Users/me", None),
        ("/Volumes/share/x", "smbfs"),
        ("/Volumes/on two/x", "nfs"),
    ],
)
def test_macos_table(path, kind):
    found = mounts.find_file_system(mounts._parse_mount(MACOS), path)
    assert (found if mounts._is_network(found) else None) == kind


def test_this_machines_own_table_is_read(tmp_path):
    # Whatever the disk, a path that is not there yet is judged by its parent.
    assert mounts.network_file_system(tmp_path / "a" / "b") == (
        mounts.network_file_system(tmp_path)
    )


def test_no_path_matches_no_mount():
    assert mounts.find_file_system([], "/x") is None


# ----------------------------------------------------------------------------- journal


@pytest.fixture
def on_a_network(monkeypatch):
    """The tables of this machine say that everything is on NFS."""

    def judge(path):
        return "nfs4"

    monkeypatch.setattr(index_module, "network_file_system", judge)
    monkeypatch.setattr("sk_medsiglip.cache._store.network_file_system", judge)


def journal_of(location):
    # A connection that stays open would keep others from changing the mode.
    with contextlib.closing(sqlite3.connect(location / "index.sqlite3")) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def fill(location):
    cache = EmbeddingCache(location)
    known = [fingerprint(i) for i in range(100)]
    cache.put_many(SPACE, known, vectors_of(known))
    return cache, known


def test_no_shared_memory_on_a_network(tmp_path, on_a_network):
    cache, known = fill(tmp_path / "store")
    assert read(cache, known)[0].all()
    names = {path.name for path in cache.location.iterdir()}
    assert not {name for name in names if name.endswith(("-wal", "-shm"))}
    assert cache.stats()["network"] == "nfs4"
    cache.close()
    assert journal_of(cache.location) in ("delete", "truncate")
    assert cache.verify().ok


def test_a_store_that_was_moved_to_a_network_is_changed(tmp_path, monkeypatch):
    cache, known = fill(tmp_path / "store")
    cache.close()
    assert journal_of(cache.location) == "wal"
    monkeypatch.setattr(index_module, "network_file_system", lambda path: "nfs4")
    assert read(cache, known)[0].all()
    cache.close()
    assert journal_of(cache.location) in ("delete", "truncate")


def test_local_disks_keep_the_log(tmp_path):
    cache, _ = fill(tmp_path / "store")
    if cache.stats()["network"]:
        pytest.skip("the temporary folder of this machine is on a network disk")
    cache.close()
    assert journal_of(cache.location) == "wal"


def test_people_are_told(tmp_path, on_a_network):
    from typer.testing import CliRunner

    cache, _ = fill(tmp_path / "store")
    there = ["--location", str(cache.location)]
    told = CliRunner().invoke(app, ["cache", "info", *there])
    assert "nfs4" in told.output
    assert Path(cache.location).is_dir()
