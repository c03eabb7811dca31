"""What the model looks at: `look` makes Views of a clip, by the settings of `ViewsConfig`."""

from vqa.views.flow import ViewsConfig, look

__all__ = ["ViewsConfig", "look"]
