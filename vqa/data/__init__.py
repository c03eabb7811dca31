"""Sources, manifests, public sets, ratings, ladders, score tables, view caches."""
