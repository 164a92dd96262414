"""Stable Diffusion 1.x in ten files, to be read in order, and an encore: training it, teaching it more, films."""
