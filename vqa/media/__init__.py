"""Video and image files: packet tables, exact frames, and the child process that can be killed."""
