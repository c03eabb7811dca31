"""Video and image files: packet tables, exact frames, and the child process that can be killed.

What is read, and how it is shown: docs/concepts/files.md.
"""

from vqa.media.backends.registry import BACKENDS, BackendName
from vqa.media.decode import decode
from vqa.media.probe import PacketTable, probe
from vqa.media.sandbox import Guard
from vqa.media.storage.fingerprint import fingerprint

__all__ = ["BACKENDS", "BackendName", "Guard", "PacketTable", "decode", "fingerprint", "probe"]
