"""What of a run is finished, and that nobody changes its settings behind its back: OUT/STAGE/stage.json."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqa.errors import UsageError
from vqa.files import write_json

FILE = "stage.json"
VERSION = 2  # of the settings' names; raised when they change, as the key of a stage is a digest of them


def key_of(settings: Mapping[str, Any]) -> str:
    """A digest of the settings, among them the key of the stage before: same key, same weights."""
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()


def begin(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the stage in `folder` is finished already; else notes its settings there.

    Raises UsageError where the folder holds a stage, finished or begun, with other settings.
    """
    path = folder / FILE
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"version": VERSION, "settings": dict(settings), "is_finished": False})
        return False
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        before, is_finished = known["settings"], bool(known["is_finished"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not what a run writes there ({error}); delete {folder} to train it again") from error
    if known.get("version") != VERSION:
        raise UsageError(
            f"{folder}: this stage was trained by another version of vqa, whose settings have other names ({FILE} has "
            f"version {known.get('version', 1)}, wanted {VERSION}); give another --out, or delete {folder} to train it "
            "again; a finished model in it can be named as `start`"
        )
    now = json.loads(json.dumps(settings))
    changed = [
        f"{key} is {now.get(key)}, was {before.get(key)}" for key in now | before if now.get(key) != before.get(key)
    ]
    if changed:
        state = "finished" if is_finished else "begun"
        raise UsageError(
            f"{folder}: this stage is {state} with other settings ({'; '.join(changed)}); give another --out, or delete"
            f" {folder} to train it again"
        )
    return is_finished


def finish(folder: Path, settings: Mapping[str, Any]) -> None:
    """Notes that the stage is finished."""
    write_json(folder / FILE, {"version": VERSION, "settings": dict(settings), "is_finished": True})
