import pytest

from crossfold_cli.yamljson import load_all


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # what kubectl made of each of these, asked with `kubectl create --dry-run=client -o json`
        ("1e-5", 0.00001),
        ("yes", True),
        ("y", True),
        ("on", True),
        ("Off", False),
        ("010", 8),
        ("2026-01-01", "2026-01-01"),
        ("190:20:30", "190:20:30"),
        ("1:30", "1:30"),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("0b11", 3),
        ("1.0", 1),
        ("+1.5", 1.5),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1.", 1),
        ("1e3", 1000),
        ("5e+3", 5000),
        ("12e03", 12000),
        ("08", 8),
        ("=", "="),
        ("~", None),
        ("NULL", None),
        ("", None),
        ('"1e-5"', "1e-5"),
        ("'yes'", "yes"),
        ("resnet18", "resnet18"),
        ("1e400x", "1e400x"),
        ("-", [None]),
        ("[1e-3, on]", [0.001, True]),
        ("!!str 1", "1"),
        ("!!float 2", 2),
    ],
)
def test_values_are_what_kubectl_makes_of_them(text: str, value: object) -> None:
    (document,) = load_all(f"a: {text}") if text != "-" else load_all("a:\n- \n")
    assert document == {"a": value}
    assert type(document["a"]) is type(value)


def test_documents_anchors_and_keys() -> None:
    assert load_all("---\n---\na: &x {b: 1}\nc: {<<: *x, d: 2}\n---\non: 1\n2: 3\n") == [
        {"a": {"b": 1}, "c": {"b": 1, "d": 2}},
        {"true": 1, "2": 3},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {", "line 1, column 5: "),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: 'a' is there twice"),
        ("a: .inf", r"line 1, column 4: JSON has no \.inf"),
        ("a: .nan", r"line 1, column 4: JSON has no \.nan"),
        ("a: 1e999", "1e999 is too large"),
        ("{[1]: 2}", "a key must be a word"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x01", "special characters"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_all(text)
