"""Differentially private training (DP-SGD): settings, accounting and the private step."""
