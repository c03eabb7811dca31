"""Video and image files: facts, packet tables, exact frames, guarded decoding.

docs/concepts/files.md lists what is read and how it is shown.
"""

from vqa.media.backends.base import BackendName
from vqa.media.backends.registry import BACKENDS
from vqa.media.decode import decode
from vqa.media.packets import PacketTable
from vqa.media.probe import probe
from vqa.media.sandbox import Guard
from vqa.media.storage.fingerprint import fingerprint

__all__ = ["BACKENDS", "BackendName", "Guard", "PacketTable", "decode", "fingerprint", "probe"]
