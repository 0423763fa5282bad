"""Fits with other tools; each file is imported only when asked for."""
