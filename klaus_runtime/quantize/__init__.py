"""Codebooks, assignment and schemes: a Model in, a quantized Model out."""
