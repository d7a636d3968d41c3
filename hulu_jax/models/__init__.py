"""The model as pure functions over dicts of arrays: `specs(config)` beside the function it serves."""
