"""Load a policy and score with it: `Scorer` in scorer.py; card.py and locate.py import no torch."""
