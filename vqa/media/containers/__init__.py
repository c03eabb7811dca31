"""Container formats: demuxing, mp4 index, stills and animations, lost packets."""
