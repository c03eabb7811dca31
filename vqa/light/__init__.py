"""The light tier: a small student of people's opinions that scores a clip without a language model."""
