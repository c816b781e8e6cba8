"""The file, the disk and the library that the SQLite store stands on."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apsw

from rebound.domain.finding import Finding, Severity

MIB: Final = 1024 * 1024
LITTLE: Final = 64 * MIB
"""Free bytes below which the disk is as good as full."""
LOW: Final = 1024 * MIB
"""Free bytes below which it is worth a warning."""
LARGE_WAL: Final = 512 * MIB
REMOTE: Final = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs",
    "beegfs", "ocfs2", "gfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs",
    "fuse.rclone", "fuse.blobfuse2", "fuse.gcsfuse", "virtiofs", "vboxsf", "prl_fs",
)  # fmt: skip
"""File systems whose locks or shared memory do not hold between hosts, or at all."""
MENDED: Final = {(3, 51): 3, (3, 50): 7, (3, 44): 6}
"""Releases of SQLite before 3.53 that the mend of the WAL-reset bug was brought back to."""
VOLATILE: Final = ("tmpfs", "ramfs")
MOUNTS: Final = Path("/proc/self/mountinfo")


def file_findings(path: str) -> list[Finding]:
    """What is wrong with the file at `path` from outside; it need not be readable."""
    real = os.path.realpath(path)
    return [
        *library_findings(apsw.sqlite_lib_version()),
        *system_findings(file_system(real, _mounts())),
        *_access(real),
        *_space(real, shutil.disk_usage(os.path.dirname(real)).free),
    ]


def library_findings(version: str) -> Iterator[Finding]:
    """Whether this SQLite may corrupt a file that several processes write (the WAL-reset bug)."""
    major, minor, patch = map(int, version.split(".")[:3])
    if (major, minor) < (3, 53) and patch < MENDED.get((major, minor), 1000):
        yield Finding(
            severity=Severity.WARNING,
            title=f"SQLite {version} has the WAL-reset bug",
            meaning="Very rarely it damages a file that several processes write.",
            remedy="`pip install --upgrade apsw`, whose wheels bring a newer SQLite.",
        )


def file_system(path: str, mounts: str) -> str:
    """The type of the file system that `path` is on, by /proc/self/mountinfo; or ''."""
    best, kind = "", ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = fields[4].encode().decode("unicode_escape")  # a space is \040 there
        inside = point == "/" or path == point or path.startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def system_findings(kind: str) -> Iterator[Finding]:
    """What is wrong with a type of file system."""
    if kind in REMOTE:
        yield Finding(
            severity=Severity.ERROR,
            title=f"the file is on a network file system ({kind})",
            meaning="Locks do not hold there, so that processes overwrite each other's tasks, and"
            " the file is damaged sooner or later.",
            remedy="Move it to a local disk, or use Redis for several hosts.",
        )
    elif kind in VOLATILE:
        yield Finding(
            severity=Severity.WARNING,
            title=f"the file is in memory ({kind})",
            meaning="A restart of the host or container loses every task.",
            remedy="Move it to a disk.",
        )
    elif kind == "overlay":
        yield Finding(
            severity=Severity.WARNING,
            title="the file is in the container, not on a volume (overlay)",
            meaning="When the container is replaced every task is gone.",
            remedy="Mount a volume and put the file on it.",
        )


def _access(path: str) -> Iterator[Finding]:
    folder = os.path.dirname(path)
    found = {name: file for name in (path, f"{path}-wal", f"{path}-shm") if (file := _stat(name))}
    for name in (folder, *found):
        if not os.access(name, os.W_OK):
            yield Finding(
                severity=Severity.ERROR,
                title=f"{name} cannot be written by this user",
                meaning="A store needs to write the file, and beside it -wal and -shm.",
                remedy="Run as the user of the service, or give it the folder and these files.",
            )
    if len({one.st_uid for one in found.values()}) > 1:
        owners = ", ".join(f"{os.path.basename(n)}: {one.st_uid}" for n, one in found.items())
        yield Finding(
            severity=Severity.ERROR,
            title="the file and its -wal and -shm have different owners",
            meaning=f"A service that may not write all of them cannot work ({owners}).",
            remedy=f"Give all of them the owner of {os.path.basename(path)} (chown).",
        )
    if any(one.st_mode & stat.S_IWOTH for one in found.values()):
        yield Finding(
            severity=Severity.WARNING,
            title="everybody on this host may write the file",
            meaning="Any user can read, change and add tasks, and so send requests from here.",
            remedy=f"`chmod o-rwx {path}*`",
        )


def _space(path: str, free: int) -> Iterator[Finding]:
    if free < LOW:
        yield Finding(
            severity=Severity.ERROR if free < LITTLE else Severity.WARNING,
            title=f"{free // MIB} MiB are free on the disk of the file",
            meaning="When it is full nothing is accepted, and nothing delivered: the ends of"
            " attempts cannot be written.",
            remedy="Make room; then service and workers go on by themselves.",
        )
    wal = _stat(f"{path}-wal")
    size = wal.st_size if wal else 0
    if size > LARGE_WAL:
        yield Finding(
            severity=Severity.WARNING,
            title=f"the -wal beside the file has {size // MIB} MiB",
            meaning="Some program holds a long read open, so that it cannot be folded in; reads"
            " become slow and the disk fills up.",
            remedy="End that program (`fuser FILE` names them): mostly a backup or sqlite3.",
        )


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None  # the last process to close the store removes -wal and -shm


def _mounts() -> str:
    try:
        return MOUNTS.read_text()
    except OSError:
        return ""  # not Linux
