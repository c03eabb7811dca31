"""Sources, manifests, published data sets, subjective ratings, synthetic ladders, score tables."""
