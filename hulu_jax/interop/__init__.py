"""The model in other libraries' clothes: thin surfaces over the same functions."""
