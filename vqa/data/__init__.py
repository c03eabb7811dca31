"""Manifests, score tables and synthetic ladders."""
