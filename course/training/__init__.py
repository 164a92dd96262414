"""Training of the small shipped model: its pictures, captions and loops."""
