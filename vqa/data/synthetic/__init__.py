"""Synthetic ladders: pristine sources, distortions, VMAF labels, demo clips."""
