"""Supervised fine-tuning (the coldstart stage)."""
