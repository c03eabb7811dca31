"""Models and `Scorer` (scorer.py); card.py and resolve.py import no torch."""
