"""Where files lie: local paths and remote stores, byte ranges, fingerprints."""
