"""YAML as configuration files and settings are written in it, read strictly.

Contract: a key that is given twice, which YAML readers drop silently, and a date that is none are mistakes like a
syntax error; each is one message with the place.
"""

from __future__ import annotations

from typing import Any

import yaml


def read_yaml(text: str, *, origin: str) -> Any:
    """The content of a YAML text.

    Args:
        text: of a file or of one setting.
        origin: what messages call it.

    Raises:
        ValueError: not YAML, a key given twice, or an impossible date, with the line.
    """
    try:
        loader = _Strict(text)
        loader.name = origin
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(f"{_place(origin, mark)}: must be YAML, got a mistake {problem}") from None
    except yaml.reader.ReaderError as error:
        raise ValueError(
            f"{origin} must be YAML, got the character #x{error.character:02x} at position {error.position}, "
            "which YAML does not allow; is it a text file?"
        ) from None


class _Strict(yaml.SafeLoader):
    """PyYAML's safe loader without its tolerance of repeated keys."""

    name: str

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuses a key that is there twice; one that is merged in with << may be given again."""
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                key = self.construct_object(key_node)
                line = key_node.start_mark.line + 1
                if key in seen:
                    raise ValueError(
                        f"{_place(self.name, key_node.start_mark)}: key {key!r} must be given once, got it in line "
                        f"{seen[key]} too; remove one of them"
                    )
                seen[key] = line
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_timestamp(self, node: yaml.ScalarNode) -> Any:
        """Refuses what looks like a date and is none."""
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError as error:
            place = _place(self.name, node.start_mark)
            raise ValueError(f"{place}: a date must exist, got {node.value} ({error})") from None


_Strict.add_constructor("tag:yaml.org,2002:timestamp", _Strict.construct_yaml_timestamp)


def _place(origin: str, mark: yaml.Mark | None) -> str:
    return origin if mark is None else f"{origin}, line {mark.line + 1}"
