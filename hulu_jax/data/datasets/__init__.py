"""One file per dataset: a file is its own registration, its `Source` a length and a lookup."""
