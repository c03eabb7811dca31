"""Synthetic ladders: pristine sources, distortions, VMAF labels, the demo clips."""
