"""Frame and box samplers: stateless index arithmetic on times and sizes.

They open no file and draw only from a given seed.
"""
