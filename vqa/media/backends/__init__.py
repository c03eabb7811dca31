"""Decoder back ends (PyAV, decord, torchcodec) behind one protocol."""
