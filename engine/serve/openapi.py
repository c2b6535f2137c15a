"""The bounds in, the JSON interface as an OpenAPI document out."""

from __future__ import annotations

from typing import Any

from .bounds import LONGEST_CLIP_S, LONGEST_TEXT, MOST_MOMENTS, MOST_PICTURES, MOST_RESULTS, MOST_SENTENCES

_SECONDS = {"type": "number", "minimum": 0}
_DATE = {"type": "string", "format": "date"}
DATE = (
    "The date of a video is the day on which its file was last modified, in the server's time zone; videos in tars "
    "and of URLs have none."
)
_TEXT = {"type": "string", "maxLength": LONGEST_TEXT}
_ID = {"name": "video_id", "in": "path", "required": True, "schema": {"type": "string"}}
_REFUSED = {
    "description": "Refused; the sentence says why.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
}


def document(version: str) -> dict[str, Any]:
    """OpenAPI 3.1 of all that the server answers, for `version` of the package."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "GridCLIP", "version": version, "description": "Search inside videos for a sentence."},
        "paths": {
            "/": {"get": _operation("The page.", "text/html", _query("token", {"type": "string"}))},
            "/api/search": {
                "get": _operation(
                    "The best videos for a sentence, for sentences in time order, or for more like a moment.",
                    "application/json",
                    _query("q", _TEXT, "What to search for."),
                    _query(
                        "then",
                        {"type": "array", "items": _TEXT, "maxItems": MOST_SENTENCES - 1},
                        "What is to follow it.",
                    ),
                    _query(
                        "not",
                        {"type": "array", "items": _TEXT, "maxItems": MOST_SENTENCES},
                        "What is not to be seen: the score is less by that of the worst of them.",
                    ),
                    _query("like", {"type": "string"}, "A video's id: more like its moment `at`."),
                    _query("at", _SECONDS),
                    *_answer_parameters(),
                    schema="Answer",
                ),
                "post": _operation(
                    "The same for a picture, which is the request's body.",
                    "application/json",
                    *_answer_parameters(),
                    schema="Answer",
                )
                | {"requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string"}}}}},
            },
            "/api/info": {"get": _operation("What is served.", "application/json", schema="Info")},
            "/api/events": {"get": _operation("The store's counts whenever they change.", "text/event-stream")},
            "/api/strip/{video_id}": {
                "get": _operation(
                    "Evenly spaced frames of a video side by side.",
                    "image/jpeg",
                    _ID,
                    _query("frames", {"type": "integer", "minimum": 1, "maximum": MOST_PICTURES}),
                )
            },
            "/api/frame/{video_id}": {
                "get": _operation("The frame on screen at a second.", "image/jpeg", _ID, _query("at", _SECONDS))
            },
            "/api/clip/{video_id}": {
                "get": _operation(
                    f"At most {LONGEST_CLIP_S:g} seconds of a video as a file that browsers play.",
                    "video/mp4",
                    _ID,
                    _query("start", _SECONDS),
                    _query("end", _SECONDS),
                    _query("save", {"type": "string", "enum": ["1"]}, "As a download."),
                )
            },
            "/media/{video_id}": {"get": _operation("A video's file, with byte ranges.", "video/mp4", _ID)},
            "/metrics": {"get": _operation("Counters for Prometheus.", "text/plain")},
            "/healthz": {"get": _operation("Whether the server answers.", "application/json")},
            "/openapi.json": {"get": _operation("This document.", "application/json")},
        },
        "components": {"schemas": _SCHEMAS},
    }


def _answer_parameters() -> list[dict[str, Any]]:
    return [
        _query("top", {"type": "integer", "minimum": 1, "maximum": MOST_RESULTS}, "How many videos."),
        _query("moments", {"type": "integer", "minimum": 1, "maximum": MOST_MOMENTS}, "How many of each."),
        _query("folder", {"type": "string"}, "Only videos whose id begins with it and a slash."),
        _query("shortest", _SECONDS, "Only videos of at least so many seconds."),
        _query("longest", _SECONDS, "Only videos of at most so many seconds."),
        _query("since", _DATE, f"Only videos of this date or later. {DATE}"),
        _query("until", _DATE, f"Only videos of this date or earlier. {DATE}"),
    ]


def _query(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema} | ({"description": description} if description else {})


def _operation(summary: str, media_type: str, *parameters: dict[str, Any], schema: str | None = None) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}} if schema else {}
    return {
        "summary": summary,
        "parameters": list(parameters),
        "responses": {
            "200": {"description": summary, "content": {media_type: content}},
            "4XX": _REFUSED,
            "503": _REFUSED,
        },
    }


_MOMENT = {
    "type": "object",
    "required": ["start_s", "end_s", "score"],
    "properties": {"start_s": _SECONDS, "end_s": _SECONDS, "score": {"type": "number"}},
}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_SCHEMAS: dict[str, Any] = {
    "Refusal": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    "Info": {
        "type": "object",
        "required": ["model", "videos", "embeddings", "failed", "growing", "folders", "dates", "version"],
    },
    "Answer": {
        "type": "object",
        "required": ["results", "noise", "took_ms"],
        "properties": {
            "results": {"type": "array", "items": {"$ref": "#/components/schemas/Result"}},
            "noise": {
                "type": ["object", "null"],
                "description": "What sentences of random words score in this store: `level` is the 95th percentile of "
                "the scores of their best videos. null: not known, or the question is no single sentence.",
                "properties": {"level": {"type": "number"}, "median": {"type": "number"}},
            },
            "took_ms": {"type": "number"},
        },
    },
    "Result": {
        "type": "object",
        "required": ["video_id", "score", "moments"],
        "properties": {
            "video_id": {"type": "string"},
            "score": {"type": "number", "description": "A cosine, -1 to 1."},
            "duration_s": {"type": ["number", "null"]},
            "file": {
                "type": ["string", "null"],
                "description": "Its path below the folder that is served, or its place in a tar or at a URL.",
            },
            "local": {"type": "boolean", "description": "Whether it is a file of its own on the server's machine."},
            "moments": {"type": "array", "items": _MOMENT},
            "curve": {
                "type": ["object", "null"],
                "properties": {
                    "start_s": _NUMBERS,
                    "end_s": _NUMBERS,
                    "cosine": _NUMBERS,
                    "weight": {"type": ["array", "null"]},
                },
            },
        },
    },
}
