"""Preflights: the first load of a version on a host, in a separate process; all workers share its result."""
