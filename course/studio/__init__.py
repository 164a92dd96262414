"""What pictures and plots are made of: a model in a studio, pages with words around a figure, and a judge of scenes."""
