"""A local web page that collects opinions: ratings (ITU-T P.910) or comparisons."""
