"""Methods: one file is one method is one citation."""
