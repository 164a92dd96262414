"""Stable Diffusion 1.x in ten files, to be read in order, and an encore: how it is trained and taught more."""
