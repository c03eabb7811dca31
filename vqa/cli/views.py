"""`vqa views`: what the model sees of a clip, as a picture. Light to import."""

from pathlib import Path
from typing import Annotated

import typer

from vqa.console import assigning


def views(
    source: Annotated[str, typer.Argument(metavar="CLIP", help="A video or picture.")],
    out: Annotated[Path, typer.Option(help="The picture to write (.png).")],
    config: Annotated[Path | None, typer.Option(help="YAML settings, as for `vqa score`.")] = None,
    assignments: Annotated[list[str] | None, assigning("views.keyframes=8")] = None,
    model: Annotated[str | None, typer.Option(help="As for `vqa score`: its card may set the views.")] = None,
    start_seconds: Annotated[float | None, typer.Option(min=0, help="Only a part of it: from here")] = None,
    end_seconds: Annotated[float | None, typer.Option(min=0, help="to here.")] = None,
) -> None:
    """Draw what the model sees of a clip: times, mosaic, frames with their crops."""
    from jobs.config import make_guard, resolve
    from vqa.data.sources import path_to_uri
    from vqa.files import replacing
    from vqa.media.storage.fingerprint import fingerprint
    from vqa.media.storage.open import local_path
    from vqa.media.storage.stores import is_remote
    from vqa.report.preview import picture
    from vqa.types import Clip
    from vqa.views import view_seed

    settings = resolve(config, assignments=assignments or (), flags={"model": model} if model else {})
    uri = source if is_remote(source) else path_to_uri(str(local_path(source)))
    clip = Clip(clip_id=source, uri=uri, start_seconds=start_seconds, end_seconds=end_seconds)
    with make_guard(settings.limits) as guard:
        seed = view_seed(guard.run(fingerprint, uri), clip)
        image = guard.run(picture, clip, settings.views, seed=seed)
    with replacing(out) as draft:
        image.save(draft, format="PNG")
    typer.echo(f"{out}", err=True)
