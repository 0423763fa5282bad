"""What is finished in a slide folder, under which parameters, and who may write there.

A slide folder is unfinished until its run.json says so. While it is unfinished its hidden folder `.work` holds the run
key, a marker for each inferred block, the stitched maps and one file for each extracted block: each appears whole or
not at all, so that a killed run is continued from the last finished block.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from wsipipe.atomic import PARTIAL, write_text
from wsipipe.errors import LockedError, OutputError, RunKeyError
from wsipipe.keydifference import differences

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1  # of a slide folder's contents; part of the run key
LOCK_NAME = ".wsipipe.lock"
KEY_NAME = "run-key.json"
_MISSING = object()


@dataclass(frozen=True, slots=True)
class RunKey:
    """Everything that decides the bytes of a slide's results.

    values: JSON values only; two folders with equal values hold equal results.
    """

    values: Mapping[str, Any]

    def to_json(self) -> str:
        """Return canonical JSON text."""
        return json.dumps(self.values, sort_keys=True, indent=1, ensure_ascii=False)


class SlideFolder:
    """One slide's output folder and its journal."""

    def __init__(self, path: Path) -> None:
        """Point at a folder that may not exist yet."""
        self.path = path
        self.work = path / ".work"

    @property
    def record_path(self) -> Path:
        """The run.json."""
        return self.path / "run.json"

    @property
    def maps_path(self) -> Path:
        """The stitched maps, while the slide is unfinished."""
        return self.work / "maps.zarr"

    @property
    def plan_path(self) -> Path:
        """The plan that every worker follows."""
        return self.work / "plan.npz"

    @property
    def layout_path(self) -> Path:
        """How the nuclei are numbered, once all blocks are extracted."""
        return self.work / "layout.npz"

    def block_path(self, index: int) -> Path:
        """The file of one extracted block."""
        return self.work / "blocks" / f"{index:06d}.arrow"

    def is_done(self) -> bool:
        """Whether run.json says that the slide is finished, and every file that it lists is there, of its size."""
        record = _read_json(self.record_path)
        if record.get("status") != "done":
            return False
        files = record.get("files")
        return isinstance(files, dict) and all(_size(self.path / name) == file["bytes"] for name, file in files.items())

    def is_done_with(self, values: Mapping[str, Any]) -> bool:
        """Whether the slide is finished under a run key that holds these values, among others."""
        held = self._held_key()
        if held is None or not self.is_done():
            return False
        wanted = json.loads(RunKey(values).to_json())
        return all(held.values.get(name, _MISSING) == value for name, value in wanted.items())

    def open(self, key: RunKey, *, overwrite: bool) -> bool:
        """Prepare the folder for a run.

        Returns:
            True if its results are finished already; False if there is work to do.

        Raises:
            RunKeyError: it holds results of another run key and overwrite is off.
            OutputError: it cannot be made, or holds files that are not ours.
        """
        if overwrite:
            self._clear_others(key)
        self.check(key)
        if self.is_done():
            return True
        try:
            (self.work / "blocks").mkdir(parents=True, exist_ok=True)
            (self.work / "inferred").mkdir(exist_ok=True)
            self._remove_orphans()
            write_text(self.work / KEY_NAME, key.to_json())
            self.record_path.unlink(missing_ok=True)  # of a finished slide that lost files
        except OSError as error:
            raise OutputError(
                f"cannot write the output folder ({error.strerror}); choose another -o: {self.path}"
            ) from error
        return False

    def check(self, key: RunKey) -> None:
        """Refuse a folder that a run with this key must not write to; nothing is changed.

        Raises:
            RunKeyError: it holds results of another run key.
            OutputError: it holds files that are not ours.
        """
        held = self._held_key()
        if held is None and self.path.is_dir() and any(self.path.iterdir()):
            raise OutputError(
                f"folder holds files that wsipipe did not write; empty it or choose another -o: {self.path}"
            )
        if held is not None and held.to_json() != key.to_json():
            raise RunKeyError(
                f"folder holds results of other parameters: {differences(held.values, json.loads(key.to_json()))}; "
                f"pass --overwrite to make them anew, or another -o: {self.path}"
            )

    def _held_key(self) -> RunKey | None:
        values = _read_json(self.record_path).get("run_key") or _read_json(self.work / KEY_NAME)
        return RunKey(values) if values else None

    def _clear_others(self, key: RunKey) -> None:
        """Remove results of another run key, but never a folder that is not ours."""
        held = self._held_key()
        if held is not None and held.to_json() != key.to_json():
            shutil.rmtree(self.path)

    def _remove_orphans(self) -> None:
        """Remove the unfinished files of a run that was killed; ours is the only run in this folder."""
        for folder in (self.path, self.work, self.work / "blocks", self.work / "inferred"):
            for path in folder.glob(f".*{PARTIAL}"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def is_inferred(self, index: int) -> bool:
        """Whether the maps of a block are complete."""
        return (self.work / "inferred" / f"{index:06d}").is_file()

    def mark_inferred(self, index: int) -> None:
        """Note that the maps of a block are complete."""
        write_text(self.work / "inferred" / f"{index:06d}", "")

    def cells_path(self, index: int) -> Path:
        """The quality of one block's cells; complete before its block file is."""
        return self.work / "blocks" / f"{index:06d}.cells.parquet"

    def is_extracted(self, index: int) -> bool:
        """Whether the nuclei of a block are on disk."""
        return self.block_path(index).is_file()

    def drop_block(self, index: int) -> None:
        """Forget an extracted block, because its file is damaged."""
        self.block_path(index).unlink(missing_ok=True)

    def finish(self) -> None:
        """Remove the intermediate files of a finished slide; what resists is tried again by the next run."""
        if not self.work.is_dir():
            return
        try:
            shutil.rmtree(self.work)
        except OSError as error:
            logger.warning("intermediate files of a finished slide stay (%s): %s", error.strerror, self.work)


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object, empty if the file is missing or was never completed."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; -1 if there is neither."""
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    except OSError:
        return -1


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the output folder for one run; the lock of a killed run is free at once, since the system drops it.

    Raises:
        LockedError: another run holds it.
        OutputError: the folder cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK_NAME, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise LockedError(f"another run is writing here; wait for it or choose another -o: {out}") from error
    except OSError as error:
        raise OutputError(f"cannot write the output folder ({error.strerror}); choose another -o: {out}") from error
    try:
        yield
    finally:
        lock.release()
