"""Notes which files each stage of a run opens. Python imports a module of this name as it starts,
where its folder is on PYTHONPATH; OPENED_FILES names the file that gets a line, "stage path", for
each file or folder that is read."""

import os
import re
import sys

_LOCK = re.compile(r".*/\.(\w+)\.lock")
_stage = []
_notes = os.open(os.environ["OPENED_FILES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _note(event, args):
    if event not in ("open", "os.listdir", "os.scandir", "os.remove"):
        return
    path = os.fspath(args[0]) if isinstance(args[0], str | os.PathLike) else ""
    lock = _LOCK.fullmatch(path)
    if lock and lock[1] in ("anew", "results"):
        return  # of the work directory, for a moment
    if lock and event in ("open", "os.remove"):
        # A stage keeps its lock as long as it works.
        _stage[:] = [lock[1]] if event == "open" else []
    elif _stage and event != "os.remove" and (event != "open" or not args[2] & os.O_WRONLY):
        os.write(_notes, f"{_stage[0]} {path}\n".encode())


sys.addaudithook(_note)
