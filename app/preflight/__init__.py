"""The first load of a version on a host: in a process of its own, its result kept for all workers."""
