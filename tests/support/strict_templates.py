"""What a CloudFormation template makes, and which parameters it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

_NAMES = ("BucketName", "TableName", "FunctionName", "LogGroupName", "RepositoryName", "Name")


class _Loader(yaml.SafeLoader):
    """CloudFormation's YAML: `!Sub x` becomes {"Fn::Sub": "x"}."""


def _tag(loader: Any, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}


yaml.add_multi_constructor("!", _tag, Loader=_Loader)


def read_template(text: str) -> dict[str, Any]:
    return dict(yaml.load(text, Loader=_Loader))


class Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Resource:
    kind: str
    physical: str
    policy: str
    properties: Any


class Evaluation:
    """A template with its parameters: what it would make."""

    def __init__(self, template: dict[str, Any], parameters: dict[str, str], stack: str) -> None:
        self._template = template
        self._facts = {
            "AWS::Region": "us-east-1", "AWS::AccountId": "000000000000", "AWS::Partition": "aws",
            "AWS::StackName": stack, "AWS::URLSuffix": "amazonaws.com", "AWS::NoValue": None,
            **parameters,
        }  # fmt: skip
        self._stack = stack

    def resources(self) -> dict[str, Resource]:
        return {
            name: self._resource(name, r)
            for name, r in self._template["Resources"].items()
            if self._holds(r)
        }

    def outputs(self) -> dict[str, str]:
        return {
            name: str(self._value(o["Value"]))
            for name, o in self._template.get("Outputs", {}).items()
            if self._holds(o)
        }

    def _holds(self, entry: dict[str, Any]) -> bool:
        return "Condition" not in entry or self._condition(entry["Condition"])

    def _condition(self, name: str) -> bool:
        return bool(self._value(self._template["Conditions"][name]))

    def _resource(self, name: str, r: dict[str, Any]) -> Resource:
        properties = self._value(r.get("Properties", {}))
        physical = next((properties[n] for n in _NAMES if n in properties), f"{self._stack}-{name}")
        return Resource(r["Type"], physical, r.get("DeletionPolicy", "Delete"), properties)

    def _value(self, v: Any) -> Any:
        if isinstance(v, list):
            return [self._value(i) for i in v]
        if not isinstance(v, dict):
            return v
        if len(v) == 1:
            ((key, argument),) = v.items()
            if key == "Ref":
                return self._ref(argument)
            if key == "Fn::Sub":
                return re.sub(r"\$\{([^}]+)\}", lambda m: str(self._ref(m[1])), argument)
            if key == "Fn::Equals":
                a, b = self._value(argument)
                return str(a) == str(b)
            if key == "Fn::Not":
                return not self._value(argument[0])
            if key == "Fn::If":
                return self._value(argument[1 if self._condition(argument[0]) else 2])
            if key == "Fn::GetAtt":
                return f"{self._ref(argument.split('.')[0])}"
            if key == "Fn::Join":
                return argument[0].join(map(str, self._value(argument[1])))
            if key == "Fn::Base64":
                return self._value(argument)
        return {k: self._value(i) for k, i in v.items() if self._value(i) is not None}

    def _ref(self, name: str) -> Any:
        name = name.split(".")[0]
        if name in self._facts:
            return self._facts[name]
        return self._resource(name, self._template["Resources"][name]).physical


def given_parameters(
    q: dict[str, str], template: dict[str, Any], before: dict[str, str]
) -> dict[str, str]:
    known = template.get("Parameters", {})
    given: dict[str, str] = {}
    for n in range(1, 200):
        name = q.get(f"Parameters.member.{n}.ParameterKey")
        if name is None:
            break
        if name not in known:
            raise Refused("ValidationError", f"Parameters: [{name}] do not exist in the template")
        if q.get(f"Parameters.member.{n}.UsePreviousValue") == "true":
            if name not in before:
                raise Refused("ValidationError", f"no previous value for {name}")
            given[name] = before[name]
        else:
            given[name] = q[f"Parameters.member.{n}.ParameterValue"]
    values = {k: str(p["Default"]) for k, p in known.items() if "Default" in p} | given
    if missing := known.keys() - values.keys():
        raise Refused("ValidationError", f"Parameters: {sorted(missing)} must have values")
    for name, value in values.items():
        allowed = known[name].get("AllowedValues")
        if allowed and value not in map(str, allowed):
            raise Refused("ValidationError", f"Parameter {name} must be one of {allowed}")
    return values
