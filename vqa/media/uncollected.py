"""Stops garbage collection: what a fork server imports first.

A collection would visit all modules that are loaded, of which hardly any is garbage.
"""

import gc

gc.disable()
