"""The vocabulary every room speaks: values and contracts, numpy only, no input or output."""
