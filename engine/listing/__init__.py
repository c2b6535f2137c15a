"""A place of videos in, the names and places of the videos there out: folders, lists, tars, URLs."""
