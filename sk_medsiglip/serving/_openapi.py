"""The routes of the service as OpenAPI describes them."""

from __future__ import annotations

from typing import Any

from sk_medsiglip._version import __version__

NOT_CLINICAL = "For research only: not a medical device, not for clinical use."

_EXAMPLE = {
    "predictions": [
        {
            "probabilities": {"effusion": 0.91},
            "decision": {"effusion": True},
            "set": {"effusion": ["present"]},
            "novelty": {"p_value": 0.4, "novel": False},
        },
        {"error": "not an image file."},
    ],
    "model": "google/medsiglip-448",
    "revision": "0" * 40,
    "version": __version__,
}
_FILES = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
_ERRORS = {
    "400": "The body ended too early, or the host is unknown.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large or holds too many images.",
    "422": "No image of the request can be read.",
    "500": "The server met a defect of its own; its log says more.",
    "503": "The server is busy; come again after the seconds in Retry-After.",
}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}


def describe_routes() -> dict[str, Any]:
    """Return the OpenAPI document."""
    file = {"type": "string", "format": "binary"}
    text = {"type": "string", "contentEncoding": "base64"}
    content = {kind: {"schema": file} for kind in _FILES}
    content["application/json"] = {"schema": _images(text)}
    content["multipart/form-data"] = {"schema": _images(file)}
    answer = _json("Answers") | {
        "description": "One prediction an image, in order; an image that cannot be "
        "read has an error in its place."
    }
    answer["content"]["application/json"]["example"] = _EXAMPLE
    errors = {
        status: _json("Error") | {"description": meaning}
        for status, meaning in _ERRORS.items()
    }
    errors["400"]["content"] |= _TEXT  # for an unknown host
    predict = {
        "summary": "Classify the images of a request: one as the body, or several.",
        "requestBody": {"required": True, "content": content},
        "responses": {"200": answer} | errors,
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sk-medsiglip",
            "version": __version__,
            "description": NOT_CLINICAL,
        },
        "paths": {
            "/predict": {"post": predict},
            "/health": _get("Tell whether the server is ready.", _json("Health")),
            "/info": _get(
                "The model, and the names of its classes or findings.", _json("Info")
            ),
            "/metrics": _get("Numbers for Prometheus.", {"content": _TEXT}),
        },
        "components": {"schemas": _schemas()},
    }


def _schemas() -> dict[str, Any]:
    """Describe the answers."""
    text, number, flag = {"type": "string"}, {"type": "number"}, {"type": "boolean"}
    about = {"model": text, "revision": text, "version": text}
    label = {"type": ["string", "number", "boolean"]}
    states = {"type": "array", "items": {"enum": ["absent", "present"]}}
    prediction = _object(
        {
            "probabilities": _by_name(number)
            | {"description": "A probability for each class or finding."},
            "decision": {
                "description": "The class, or for each finding whether it is present.",
                "anyOf": [label, _by_name(flag)],
            },
        },
        {
            "set": {
                "description": "The conformal set: classes, or states of each finding.",
                "anyOf": [_list(label), _by_name(states)],
            },
            "novelty": _object({"p_value": number, "novel": flag}),
        },
    )
    return {
        "Answers": _object(
            {"predictions": _list({"anyOf": [_ref("Prediction"), _ref("Unreadable")]})}
            | about
        ),
        "Prediction": prediction,
        "Unreadable": _object({"error": text}),
        "Error": _object({"detail": text}),
        "Health": _object({"status": {"const": "ok"}}),
        "Info": _object(
            about
            | {
                "demonstration": flag,
                "names": _list(text),
                "exclusive": flag,
                "has_sets": flag,
                "has_novelty": flag,
            }
        ),
    }


def _images(kind: dict[str, str]) -> dict[str, Any]:
    """Describe an object with a list of images; other keys are not looked at."""
    images = _list(kind)
    return {"type": "object", "properties": {"images": images}, "required": ["images"]}


def _object(
    required: dict[str, Any], optional: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def _by_name(values: dict[str, Any]) -> dict[str, Any]:
    """Describe an object whose keys are names of classes or findings."""
    return {"type": "object", "additionalProperties": values}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str) -> dict[str, Any]:
    """Describe a response whose body is one of the schemas."""
    return {"content": {"application/json": {"schema": _ref(name)}}}


def _get(summary: str, response: dict[str, Any]) -> dict[str, Any]:
    answer = {"description": summary} | response
    return {"get": {"summary": summary, "responses": {"200": answer}}}
