"""The illustrator: scenes that it draws, and captions for them. What the small model is trained on."""
