"""Which frames and which boxes: pure index arithmetic."""
