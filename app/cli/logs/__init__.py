"""`tableside logs`: merges the log files of a stack by time, and prints the lines that are asked for."""
