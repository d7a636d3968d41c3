"""The model as pure functions over dicts of arrays: specs beside the function they serve."""
