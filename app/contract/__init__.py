"""What a version promises: its typed input table, outputs and tolerances."""
