"""Views of a clip that the model is shown, made by `look` from a `ViewsConfig`."""

from vqa.views.flow import ViewsConfig, look
from vqa.views.frames import view_seed

__all__ = ["ViewsConfig", "look", "view_seed"]
