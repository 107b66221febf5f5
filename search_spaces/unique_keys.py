"""YAML as `safe_load` reads it, but for a key given twice, which is refused instead of keeping the last."""

from __future__ import annotations

import yaml


def load_yaml(text: str) -> object:
    """What the text holds.

    Raises:
        yaml.YAMLError: not YAML, or a key given twice; `in_one_line` says it shortly.
    """
    return yaml.load(text, Loader=_UniqueKeyLoader)


def in_one_line(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the excerpt that the parser draws."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


class _UniqueKeyLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                problem = f"the key {key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
