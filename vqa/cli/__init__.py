"""The `vqa` commands: a file per command, each loads what it needs when it runs; `vqa --help` loads nothing."""

from vqa.cli.app import main, run_command

__all__ = ["main", "run_command"]
