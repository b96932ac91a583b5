"""Parts of the room by themselves: mounts, headers of segments, the index."""

import errno
import os

import numpy as np
import pytest
from test_cache import SPACE, read
from test_cache_breakage import put, segment_of, set_format

from sk_medsiglip.cache import _index, _segment_layout, _system
from sk_medsiglip.exceptions import CacheError, CacheWarning

# ------------------------------------------------------------------------------ mounts

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
    found = _system.find_file_system(_system._parse_mountinfo(LINUX), path)
    assert found is not None
    assert (found if _system._is_network(found) else None) == kind


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
    found = _system.find_file_system(_system._parse_mount(MACOS), path)
    assert (found if _system._is_network(found) else None) == kind


def test_this_machines_own_table_is_read(tmp_path):
    # Whatever the disk, a path that is not there yet is judged by its parent.
    assert _system.network_file_system(tmp_path / "a" / "b") == (
        _system.network_file_system(tmp_path)
    )


def test_no_path_matches_no_mount():
    assert _system.find_file_system([], "/x") is None


# ----------------------------------------------------------------- segments, index


def test_an_earlier_index_that_cannot_be_written_says_so(location, cache, monkeypatch):
    put(cache, range(10))
    cache.close()
    set_format(location, 1)
    # As in a read-only folder: opening for writing fails, then reading is tried.
    prepare = _index.Index._prepare

    def refuse(self, create):
        if self.writable:
            raise CacheError("attempt to write a readonly database")
        prepare(self, create)

    monkeypatch.setattr(_index.Index, "_prepare", refuse)
    with pytest.raises(CacheError, match="earlier"):
        len(cache)


def test_the_segment_of_another_version_is_refused(cache, location):
    known = put(cache, range(10))
    cache.close()
    header = _segment_layout.make_header(int(segment_of(location).stem, 16), SPACE)
    text = header.rstrip(b"\0")[_segment_layout.HEADER_START.size :]
    text = text.replace(b'"format": 1', b'"format": 2')
    start = _segment_layout.HEADER_START.pack(
        _segment_layout.MAGIC, len(text), _segment_layout.crc32(text)
    )
    with open(segment_of(location), "r+b") as file:
        file.write((start + text).ljust(_segment_layout.HEADER_BYTES, b"\0"))
    with pytest.raises(CacheError, match="format 2"):
        read(cache, known)
    with pytest.raises(CacheError, match="format 2"):
        cache.verify()


def test_a_bad_part_of_a_disk_costs_its_rows_only(cache, location, monkeypatch):
    known = put(cache, range(100))
    really = _segment_layout.read_at
    n_bytes = _segment_layout.row_bytes(SPACE.width)
    first, last = (_segment_layout.ROWS_START + row * n_bytes for row in (10, 13))

    def read_at(fd, buffers, offset):
        if first <= offset < last:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if offset < first:  # as disks do, up to the bad part
            n_left, some = first - offset, []
            for buffer in buffers:
                some.append(buffer[:n_left])
                n_left -= len(some[-1])
            buffers = [buffer for buffer in some if len(buffer)]
        return really(fd, buffers, offset)

    monkeypatch.setattr("sk_medsiglip.cache._segments.read_at", read_at)
    with pytest.warns(CacheWarning, match="3 stored"):
        found = read(cache, known)
    assert np.flatnonzero(~found).tolist() == [10, 11, 12]
    monkeypatch.undo()
    assert read(cache, known).all()
    assert cache.verify().ok
