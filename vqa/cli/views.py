"""`vqa views`: the settings of a scoring run, applied to one clip, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from jobs.config import guarding, resolve
from vqa.data.sources import path_to_uri
from vqa.files import replacing
from vqa.media.sandbox import Guard
from vqa.media.storage.fingerprint import fingerprint
from vqa.media.storage.open import local_path
from vqa.media.storage.stores import is_remote
from vqa.report.preview import picture
from vqa.types import Clip
from vqa.views import view_seed


def draw(
    source: str,
    *,
    out: Path,
    config: Path | None = None,
    assignments: Sequence[str] = (),
    model: str | None = None,
    span: tuple[float | None, float | None] = (None, None),
) -> None:
    """Writes the picture of what the model sees. Raises ClipError, UsageError."""
    settings = resolve(config, assignments=assignments, flags={"model": model} if model else {})
    uri = source if is_remote(source) else path_to_uri(str(local_path(source)))
    clip = Clip(clip_id=source, uri=uri, start_seconds=span[0], end_seconds=span[1])
    with Guard(**guarding(settings.limits)) as guard:
        seed = view_seed(guard.run(fingerprint, uri), clip)
        image = guard.run(picture, clip, settings.views, seed=seed)
    with replacing(out) as draft:
        image.save(draft, format="PNG")
