"""Published data sets: label files in, manifests out."""
