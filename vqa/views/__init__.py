"""What the model looks at: `look` makes Views of a clip, by the settings of `ViewsConfig`."""

from vqa.views.flow import ViewsConfig, look
from vqa.views.frames import view_seed

__all__ = ["ViewsConfig", "look", "view_seed"]
