"""Frame and box samplers: pure index arithmetic that opens no file, keeps no state and draws only from a given seed."""
