"""The routes of the service as OpenAPI describes them."""

from __future__ import annotations

from typing import Any

from sk_medsiglip._version import __version__

_EXAMPLE = {
    "predictions": [
        {
            "probabilities": {"effusion": 0.91},
            "decision": {"effusion": True},
            "set": {"effusion": ["present"]},
            "novelty": {"p_value": 0.4, "novel": False},
        }
    ],
    "model": "google/medsiglip-448",
    "revision": "0" * 40,
    "version": __version__,
}
_FILES = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")


def describe_routes() -> dict[str, Any]:
    """Return the OpenAPI document."""
    file = {"type": "string", "format": "binary"}
    text = {"type": "string", "contentEncoding": "base64"}
    content = {kind: {"schema": file} for kind in _FILES}
    content["application/json"] = {"schema": _images(text)}
    content["multipart/form-data"] = {"schema": _images(file)}
    predict = {
        "summary": "Classify the images of a request: one as the body, or several.",
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "One prediction an image, in order; an image that "
                "cannot be read has an error in its place.",
                "content": {"application/json": {"example": _EXAMPLE}},
            },
            "400": {"description": "The body ended too early, or the host is unknown."},
            "408": {"description": "The body did not arrive in time."},
            "413": {"description": "The body is too large or holds too many images."},
            "422": {"description": "No image of the request can be read."},
            "503": {"description": "The server is busy; come again."},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sk-medsiglip",
            "version": __version__,
            "description": "For research only: not a medical device, not for clinical "
            "use.",
        },
        "paths": {
            "/predict": {"post": predict},
            "/health": _get("Tell whether the server is ready."),
            "/info": _get("The model, and the names of its classes or findings."),
            "/metrics": _get("Numbers for Prometheus."),
        },
    }


def _images(kind: dict[str, str]) -> dict[str, Any]:
    """Describe an object with a list of images."""
    images = {"type": "array", "items": kind}
    return {"type": "object", "properties": {"images": images}, "required": ["images"]}


def _get(summary: str) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": {"200": {"description": summary}}}}
