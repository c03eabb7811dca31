"""`python -m vqa.cli`: the same commands, for launchers that want a module."""

from vqa.cli import run_command

run_command()
