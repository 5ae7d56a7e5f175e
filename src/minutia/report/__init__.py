"""Verdicts for people and machines: a terminal, JSON, one self-contained page."""
