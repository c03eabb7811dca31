"""Colour conversion to RGB as shown: range, matrix, HDR tone mapping."""
