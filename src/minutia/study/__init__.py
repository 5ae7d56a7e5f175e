"""Studies: zoos of models with known truth, and what the methods say about them."""
