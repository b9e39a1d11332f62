"""A small file system that can be filled up, mounted where nobody else sees it.

The whole program goes on in a mount namespace of its own, so that its mounts are gone with its processes, whatever
ends them.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

_MARK = "QUANTLYTIC_TESTS_OWN_MOUNTS"


def enter_own_mounts(module: str) -> str:
    """Become `python -m module` with the same arguments, in its own mount namespace, as root or in a user namespace.

    Returns only where it is done already (''), or where the system does not let us (why).
    """
    if os.environ.get(_MARK) == str(os.getpid()):
        return ""
    # As who we are: Postgres refuses to run as root, also as that of a user namespace.
    rights = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps", "--mount"]
    if shutil.which("unshare") is None:
        return "there is no `unshare` here to mount a small file system with"
    with tempfile.TemporaryDirectory() as place:
        trial = ["unshare", *rights, "mount", "-t", "tmpfs", "tmpfs", place]
        tried = subprocess.run(trial, capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"`{' '.join(trial[:-1])} …` is not allowed here ({tried.stderr.strip()})"
    command = ["unshare", *rights, sys.executable, "-m", module, *sys.argv[1:]]
    os.execvpe(command[0], command, {**os.environ, _MARK: str(os.getpid())})


class SmallDisk:
    """A tmpfs of so many MB and files at `path`, a directory that is made. Wants `enter_own_mounts`."""

    def __init__(self, path: Path, megabytes: int, files: int):
        self.path = path
        self._ballast = path / "ballast"
        path.mkdir(parents=True)
        options = f"size={megabytes}m,nr_inodes={files},mode=0755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes free. What others let go of meanwhile is taken as well when this is called again."""
        self._ballast.mkdir(exist_ok=True)
        while (free := _free_bytes(self.path) - leave) > 0:
            number = len(list(self._ballast.iterdir()))
            with (self._ballast / str(number)).open("wb") as file, suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, free)

    def use_up_files(self) -> None:
        """Leave bytes free, but not one file more that could be made."""
        self._ballast.mkdir(exist_ok=True)
        for number in range(len(list(self._ballast.iterdir())), 10_000_000):
            try:
                (self._ballast / str(number)).touch(exist_ok=False)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return

    def free(self) -> None:
        """Give all of it back."""
        shutil.rmtree(self._ballast, ignore_errors=True)

    def close(self) -> None:
        """Unmount it, also while it is in use."""
        subprocess.run(["umount", "-l", str(self.path)], check=True)


def _free_bytes(path: Path) -> int:
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize
