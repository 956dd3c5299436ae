"""Threads, locks between processes, and the one place that knows gevent."""
