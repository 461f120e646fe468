"""Captions and pictures out of models: decoding, sampling, and what is written of them."""
