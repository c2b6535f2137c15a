"""The gridclip command: click options in, calls into engine/ and export/ out; no logic of its own."""
