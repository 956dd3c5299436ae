"""Request bodies to tables, and arrays back to bodies."""
