"""What --overwrite does: new results are made beside the old ones and take their place once they are complete.

`OUT/.wsipipe-new/<slide id>` is a slide folder with a journal of its own, so that a stopped run goes on there. The old
folder stays where it is, whole and readable, until run.json of the new one says "done"; then it is moved to
`OUT/.wsipipe-old`, the new one to its place, and the old one is removed. A file in each new folder tells that it
belongs to an --overwrite that has not ended yet, so that the same command does not do it a second time.
"""

import contextlib
import os
import shutil
from pathlib import Path

from wsipipe.atomic import write_text
from wsipipe.journal import RunKey, SlideFolder

NEW, OLD = ".wsipipe-new", ".wsipipe-old"  # in the output folder; no slide id begins with a point
MARK = ".overwriting"  # in a slide folder


def folder_for(home: Path, key: RunKey, *, overwrite: bool) -> SlideFolder:
    """Return where a slide's results are to be made: in its place, or beside finished ones that they are to replace.

    Args:
        home: the slide's folder in the output folder.
        key: of the results to be made.
        overwrite: finished results may be replaced; those that the same unfinished --overwrite made are kept.
    """
    folder = SlideFolder(home)
    is_ours = (home / MARK).is_file() and folder.is_done_with(key.values)
    return SlideFolder(home.parent / NEW / home.name) if overwrite and folder.is_done() and not is_ours else folder


def mark(folder: SlideFolder) -> None:
    """Note that a folder's results belong to an --overwrite that has not ended."""
    write_text(folder.path / MARK, "")


def put_in_place(new: Path, home: Path) -> None:
    """Move finished results to their place, if they were made elsewhere, and remove those that they replace."""
    if new == home:
        return
    old = home.parent / OLD / home.name
    _remove(old)
    old.parent.mkdir(exist_ok=True)
    os.replace(home, old)
    os.replace(new, home)
    _remove(old)


def recover(out: Path) -> None:
    """Bring back a slide's old results where a run was killed between the two moves; sweep up what is left of others.

    Only the run that holds the output folder may do this.
    """
    for old in (out / OLD).glob("*"):
        if os.path.lexists(out / old.name):
            _remove(old)
        else:
            os.replace(old, out / old.name)
    _remove_if_empty(out)


def end_overwrite(out: Path) -> None:
    """Note that an --overwrite has ended: the next one makes everything anew."""
    for marked in out.glob(f"*/{MARK}"):
        marked.unlink(missing_ok=True)
    _remove_if_empty(out)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_empty(out: Path) -> None:
    for name in (NEW, OLD):
        with contextlib.suppress(OSError):
            (out / name).rmdir()
