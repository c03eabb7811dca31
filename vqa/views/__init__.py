"""Views of a clip, which the model is shown: `look` makes them by the settings of `ViewsConfig`."""

from vqa.views.flow import ViewsConfig, look
from vqa.views.frames import view_seed

__all__ = ["ViewsConfig", "look", "view_seed"]
