"""Structural methods: they read weights, ask nothing, and need no other models."""
