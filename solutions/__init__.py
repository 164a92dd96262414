"""Stable Diffusion 1.x in ten files, to be read in order."""
