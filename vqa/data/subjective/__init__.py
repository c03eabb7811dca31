"""Raw ratings to opinions (MOS)."""
