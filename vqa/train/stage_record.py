"""Record of a stage, stage.json: its settings, and whether it is finished.

By it a run resumes, and refuses a folder that was trained with other settings.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from vqa.errors import UsageError
from vqa.files import write_json
from vqa.train.recipe import STAGE_FILE

SETTINGS_VERSION = 3  # raised when settings are renamed or teach another thing


def stage_key(settings: Mapping[str, object]) -> str:
    """Digest of settings and the earlier stage's key: same key, same weights."""
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()


def begin_stage(folder: Path, settings: Mapping[str, object]) -> bool:
    """Return whether the stage in `folder` is finished; write a new one's settings.

    Raises:
        UsageError: where the folder holds a stage, finished or begun, with other settings.
    """
    path = folder / STAGE_FILE
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write_stage(folder, settings, is_finished=False)
        return False
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        before, is_finished, version = known["settings"], bool(known["is_finished"]), known.get("version", 1)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a stage's settings ({error}). Delete {folder} to train it again.") from error
    if version != SETTINGS_VERSION:
        raise UsageError(
            f"{folder}: this stage was trained by another version of vqa, whose settings have other names "
            f"({STAGE_FILE} has version {version}, wanted {SETTINGS_VERSION}). Give another --out, or delete {folder} "
            "to train it again; a finished model in it can be named as `start`."
        )
    now = json.loads(json.dumps(settings))
    changed = [
        f"{key} is {now.get(key)}, was {before.get(key)}" for key in now | before if now.get(key) != before.get(key)
    ]
    if changed:
        state = "finished" if is_finished else "begun"
        raise UsageError(
            f"{folder}: this stage is {state} with other settings ({'; '.join(changed)}). Give another --out, or delete"
            f" {folder} to train it again."
        )
    return is_finished


def finish_stage(folder: Path, settings: Mapping[str, object]) -> None:
    """Write that the stage is finished."""
    _write_stage(folder, settings, is_finished=True)


def _write_stage(folder: Path, settings: Mapping[str, object], *, is_finished: bool) -> None:
    state = {"version": SETTINGS_VERSION, "settings": dict(settings), "is_finished": is_finished}
    write_json(folder / STAGE_FILE, state)
