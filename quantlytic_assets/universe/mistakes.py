"""What pydantic finds wrong with a file, as sentences with their places: what is wrong, what would be right.

Nothing here knows what a universe holds; fields, their types and their words are in `declarations` and `fields`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from quantlytic_assets.universe.fields import PARTIAL, Declaration, Parsed, nearest
from quantlytic_assets.universe.yaml_tree import Place, Tree, describe, short

Model = TypeVar("Model", bound=Declaration)


def read_declarations(model: type[Model], tree: Tree) -> tuple[Model, list[tuple[Place, str]]]:
    """The file as `model`, and each mistake with its place, YAML's own first.

    With mistakes the model is partial: None stands for all that is wrong or missing, and unknown fields are left out.
    """
    try:
        return model.model_validate(tree.value), tree.mistakes
    except ValidationError as error:
        found = [(_place(details), details) for details in error.errors(include_url=False, include_input=False)]
    found = [(place, details) for place, details in found if place not in tree.rejected]
    misspelt = {near for place, details in found if (near := _meant(model, tree, place, details))}
    said = [
        (place, _sentence(model, tree, place, details))
        for place, details in found
        # A misspelt name is one mistake: its field is not missing too.
        if not (details["type"] == "missing" and place in misspelt)
    ]
    rest = deepcopy(tree.value)
    for place, details in found:
        *parents, name = place
        parent = rest
        for part in parents:
            parent = parent[part]
        if details["type"] == "extra_forbidden":
            del parent[name]
            if near := _meant(model, tree, place, details):
                # It is there, under another name.
                parent[near[-1]] = None
        elif details["loc"][-1] != "[key]":
            parent[name] = None
    return model.model_validate(rest, context=PARTIAL), tree.mistakes + said


def written(place: Place) -> str:
    """A place as `datasets.prices_1m.symbols[0].from`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{short(part)}" for part in place]
    return "".join(parts).removeprefix(".")


def line_of(tree: Tree, place: Place) -> int:
    """The line of a place, or of what it should stand in."""
    while place and place not in tree.lines:
        place = place[:-1]
    return tree.lines.get(place, 1)


def _place(details: ErrorDetails) -> Place:
    # A discriminated union adds its tag, a mapping's name its mark.
    return tuple(part for part in details["loc"] if part not in ("{name}", "{mapping}", "[key]"))


def _given(tree: Tree, place: Place) -> Any:
    value = tree.value
    for part in place:
        value = value[part]
    return value


def _meant(model: type[Declaration], tree: Tree, place: Place, details: ErrorDetails) -> Place | None:
    """The place of the field that an unknown one was meant to be."""
    if details["type"] != "extra_forbidden":
        return None
    given = _given(tree, place[:-1])
    known = [name for name in _fields(_declaration(model, place)[0]) if name not in given]
    near = nearest(str(place[-1]), known)
    return (*place[:-1], near) if near else None


def _sentence(model: type[Declaration], tree: Tree, place: Place, details: ErrorDetails) -> str:
    kind = details["type"]
    within, field, _ = _declaration(model, place)
    if kind == "missing":
        return "missing, add it: it has no default"
    if kind == "extra_forbidden":
        meant = _meant(model, tree, place, details)
        hint = f"did you mean '{meant[-1]}'?" if meant else f"fields are {', '.join(_fields(within))}"
        return f"unknown field, {hint}"
    value, text = (place[-1], str(place[-1])) if details["loc"][-1] == "[key]" else _value(tree, place)
    if value is None and isinstance(place[-1], str):
        return f"is empty, it should be {_wanted(model, place, kind)}"
    if kind == "too_short":
        return "is empty, give at least one" + ("" if field is None or field.is_required() else " or leave it out")
    if isinstance(value, (dict, list)):
        return f"is {describe(value, text)}, it should be {_wanted(model, place, kind)}"
    if kind == "text":
        read = "nothing" if value is None else str(value).lower()
        return f'YAML reads {short(text) or "this"} as {read}, quote it: "{short(text)}"'
    if kind == "said":
        return details["msg"].replace("{given}", describe(value, text))
    return f"is {describe(value, text)}, it should be {_wanted(model, place, kind)}"


def _value(tree: Tree, place: Place) -> tuple[Any, str]:
    return _given(tree, place), tree.texts.get(place, "")


def _declaration(model: type[Declaration], place: Place) -> tuple[type[Declaration], FieldInfo | None, bool]:
    """The declaration that a place lies in or is to hold, and the innermost field on the way.

    Last: whether the place is an item of that field's list or mapping.
    """
    field, is_item = None, False
    parts = iter(place)
    for part in parts:
        found = _fields(model).get(str(part))
        is_item = found is None
        if found is not None:
            field = found
            model = _inner(found.annotation) or model
            if get_origin(found.annotation) is dict:
                is_item = next(parts, None) is not None
    return model, field, is_item


def _fields(model: type[Declaration]) -> dict[str, FieldInfo]:
    """A declaration's fields by the file's names."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _inner(annotation: Any) -> type[Declaration] | None:
    if isinstance(annotation, type) and issubclass(annotation, Declaration):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part))), None)


def _wanted(model: type[Declaration], place: Place, kind: str) -> str:
    """What should stand in a place, in words."""
    model, field, is_item = _declaration(model, place)
    if kind == "model_type" or field is None or (is_item and _inner(field.annotation)):
        return str(model.model_config["title"])
    parsed = _parsed(field.annotation if is_item else field)
    return parsed.wanted if parsed else field.title or str(model.model_config["title"])


def _parsed(declared: Any) -> Parsed | None:
    """The type of a field or of a list's items, where it is one of ours."""
    metadata = declared.metadata if isinstance(declared, FieldInfo) else getattr(declared, "__metadata__", [])
    found = next((one for one in metadata if isinstance(one, Parsed)), None)
    if found or isinstance(declared, FieldInfo):
        return found
    return next((inner for part in reversed(get_args(declared)) if (inner := _parsed(part))), None)
