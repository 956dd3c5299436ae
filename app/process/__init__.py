"""Native threads, numbered worker slots and file locks."""
