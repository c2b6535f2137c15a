"""A store and a folder of videos in, a page to search them with out: answers as JSON, pictures, clips, the videos."""
