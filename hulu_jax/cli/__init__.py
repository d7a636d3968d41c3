"""The `hulu` command: one file per subcommand, each thin."""
