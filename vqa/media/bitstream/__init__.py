"""Which packets need no decoding, read from the bitstream; a file per codec."""
