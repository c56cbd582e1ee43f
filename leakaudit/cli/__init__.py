"""The command line: options in, files and an exit code out."""
