"""The light tier: a small student of people's opinions, without a language model."""
