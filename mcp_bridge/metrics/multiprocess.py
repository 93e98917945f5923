"""The folder in which several workers share metrics; must not import prometheus_client.

That library reads the folder's variable at import, so the folder must exist before.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from django.conf import settings

logger = logging.getLogger(__name__)

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
GAUGES = ("gauge_livesum", "gauge_livemax", "gauge_livemin")
KINDS = ("counter", "histogram", *GAUGES)
"""A worker's files, as prometheus_client names them for prometheus.py."""
FILE_SIZE = 256 * 1024
"""Bytes of each file: more series than the few labels can make."""


def prepare_folder() -> None:
    """Create the folder and set its variable, if several workers are measured."""
    if settings.METRICS_TOKEN and settings.WORKERS > 1:
        folder = first_writable([settings.DATA_DIR / "metrics", temporary_root()])
        if folder is not None:
            os.environ.setdefault(FOLDER, str(folder))


def temporary_root() -> Path:
    """A folder of this account, for a DATA_DIR that is read-only."""
    return Path(tempfile.gettempdir()) / f"portico-metrics-{os.geteuid()}"


def first_writable(roots: list[Path]) -> Path | None:
    """The shared folder in the first root that this account owns and can write to.

    Without one, each worker reports its own metrics: a worker that failed here would be
    restarted for ever.
    """
    for root in roots:
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if root.stat().st_uid == os.geteuid():
                return shared_folder(root)
            problem = "another account owns it"
        except OSError as error:
            problem = str(error)
        logger.error("Workers cannot share metrics in %s: %s", root, problem)
    return None


def shared_folder(root: Path) -> Path:
    """The folder for this parent's workers, without the files of dead processes."""
    mine = root / str(os.getppid())
    mine.mkdir(parents=True, exist_ok=True)
    for other in root.iterdir():
        if other.name.isdigit() and not alive(int(other.name)):
            shutil.rmtree(other, ignore_errors=True)
    forget_dead(mine, os.getpid())
    reserve(mine)
    return mine


def reserve(folder: Path) -> None:
    """Allocate this worker's files now.

    They are written through mmap. If the disk is full, the first write to an
    unallocated page kills the process (SIGBUS).
    """
    for kind in KINDS:
        with (folder / f"{kind}_{os.getpid()}.db").open("ab") as file:
            if not file.tell():
                file.write(bytes(FILE_SIZE))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def forget_dead(folder: Path, *also: int) -> None:
    """Delete the gauges of dead workers; their counters remain."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if pid in also or not alive(pid):
            path.unlink(missing_ok=True)
