"""A tiny CLIP of its own, generated videos and captions in; a store and its recall out: what `make demo` runs."""
