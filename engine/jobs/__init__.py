"""Long work: files in, super image folders or a filled store out, with progress, failures.jsonl and resume.

One job per module: super_images, embed_videos, embed_images, embed_text. This file imports none of them, so that a job
pays only for its own imports.
"""
