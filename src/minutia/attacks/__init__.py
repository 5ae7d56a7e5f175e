"""Removal attacks: model in, new model out."""
