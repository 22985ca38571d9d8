"""The `implicitly` command."""
