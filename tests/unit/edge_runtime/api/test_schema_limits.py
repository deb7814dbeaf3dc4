import pytest

from edge_runtime.api.schema_limits import DEEPEST, fault_of_schema, is_deep


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"type": "string", "maxLength": 255, "pattern": "^[0-9]{1,3}$"},
        {"properties": {"minItems": {"type": "integer"}}},
        {"maxItems": "many"},
    ],
)
def test_what_people_write_is_modest(schema: object) -> None:
    assert fault_of_schema(schema) == ""


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"minItems": 1001}, "minItems = 1001: at most 1000"),
        ({"anyOf": [{"properties": {"a": {"maxLength": 1e30}}}]}, "maxLength = 1e+30"),
        ({"pattern": "(a{3}){2,1001}"}, "a pattern that repeats"),
        ({"pattern": "a{" + "9" * 10_000 + "}"}, "a pattern that repeats"),
    ],
)
def test_what_would_fill_the_memory_is_told(schema: object, fault: str) -> None:
    assert fault_of_schema(schema).startswith(fault)


def test_depth_is_found_without_going_deep() -> None:
    value: object = 1
    for _ in range(DEEPEST - 1):
        value = [value]
    assert not is_deep(value)
    for _ in range(100_000):
        value = {"a": value}
    assert is_deep(value)
    assert "levels of nesting" in fault_of_schema(value)
    while isinstance(value, dict):  # Python would free it recursively
        value = value["a"]
