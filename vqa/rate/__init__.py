"""Collection of opinions: a local web page for ratings of single clips (ITU-T P.910) or comparisons of two."""
