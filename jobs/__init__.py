"""Jobs over many files: scoring, preparing, training; in this process or on Ray, the only place that imports it."""
