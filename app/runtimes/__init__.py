"""Code that loads an artifact and runs it: a table goes in, arrays come out."""
