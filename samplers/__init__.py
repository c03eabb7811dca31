"""Which frames, which boxes: pure index arithmetic; opens no file, keeps no state, draws only from a given seed."""
