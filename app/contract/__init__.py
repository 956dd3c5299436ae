"""What a version takes and gives, and how a body becomes its input table."""
