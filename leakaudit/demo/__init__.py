"""Rendered people and the shipped weights that make ``leakaudit scan --demo`` run offline."""
