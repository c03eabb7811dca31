"""Readers of published data sets: label files to manifests."""
