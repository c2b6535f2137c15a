"""A store or predictions, and an annotation file, in; recall and what it may be compared with out."""
