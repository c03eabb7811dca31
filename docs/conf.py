"""Sphinx settings. `make docs` writes build/docs; nothing is fetched while it builds."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generate  # noqa: E402  # beside this file

project = "vqa"
author = "the vqa authors"
version = release = installed_version("vqa")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generated"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
default_role = "code"  # docstrings mark code with single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
html_theme = "furo"
html_title = f"vqa {version}"
html_copy_source = False


def setup(app: Any) -> None:
    """Write the generated pages before Sphinx reads them."""
    app.connect("builder-inited", lambda _: generate.write(HERE / "generated"))
