"""Native threads, delayed calls, numbered worker slots and file locks."""
