"""The `vqa` commands, a file for each; `vqa --help` loads nothing heavy."""

from vqa.cli.app import main, run_command

__all__ = ["main", "run_command"]
