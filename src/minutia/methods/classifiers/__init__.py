"""Methods for classifiers."""
