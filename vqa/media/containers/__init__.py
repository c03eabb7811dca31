"""Container formats: FFmpeg demuxing, the mp4 index, still and animated images, lost packets."""
