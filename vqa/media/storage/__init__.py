"""Local files and remote stores, byte ranges, fingerprints."""
