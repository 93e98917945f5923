"""The folder in which several workers keep their metrics; no prometheus_client here.

That library looks for the folder while it is imported, so it is made before.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from django.conf import settings

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
KINDS = ("counter", "histogram", "gauge_livesum")
"""The files of a worker, as prometheus_client names those of prometheus.py."""
ROOM = 256 * 1024
"""Bytes of each, for more series than the few labels can make."""


def share() -> None:
    """Make the folder and announce it, if several workers are to be measured."""
    if settings.METRICS_TOKEN and settings.WORKERS > 1:
        folder = shared_folder(settings.DATA_DIR / "metrics")
        os.environ.setdefault(FOLDER, str(folder))


def shared_folder(root: Path) -> Path:
    """The folder of the workers of one parent, cleared of the files of the dead."""
    mine = root / str(os.getppid())
    mine.mkdir(parents=True, exist_ok=True)
    for other in root.iterdir():
        if other.name.isdigit() and not alive(int(other.name)):
            shutil.rmtree(other, ignore_errors=True)
    forget_dead(mine, os.getpid())
    reserve(mine)
    return mine


def reserve(folder: Path) -> None:
    """Take the room for this worker's files now, while there is some.

    They are written through mmap, and where the disk has become full the first write
    to a page kills the process (SIGBUS).
    """
    for kind in KINDS:
        with (folder / f"{kind}_{os.getpid()}.db").open("ab") as file:
            if not file.tell():
                file.write(bytes(ROOM))


def alive(pid: int) -> bool:
    """Whether a process of that number runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def forget_dead(folder: Path, *also: int) -> None:
    """Drop what dead workers had in flight; what they counted stays counted."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if pid in also or not alive(pid):
            path.unlink(missing_ok=True)
