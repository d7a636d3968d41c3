"""Parameters, sharding and the one einsum: nothing here knows of medicine, images or models."""
