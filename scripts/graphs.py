"""Graphs described once, written in the three forms that ComfyUI reads: a page's, the API's, a blueprint's.

A graph names its nodes, their widgets and the wires between them; sockets, widget order, defaults and names
come from the host's own ``/object_info``, so that no file can disagree with the nodes. Standard library only.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SLOT, WIDGET, TITLE, GAP, WIDTH = 20, 24, 30, 24, 300
FOOTER = 40
"""Height that Nodes 2.0 adds below the widgets: the pack's badge, and the button for advanced widgets."""
GROUP_TITLE, PADDING = 50, 20
NOTE_COLUMNS, NOTE_ROW = 56, 14
COLOR, SIDE_COLOR = "#3f789e", "#8A8"
BLUEPRINT_IN, BLUEPRINT_OUT = -10, -20
"""The page's ids of the two edges of a subgraph."""
BYPASS = 4
"""The page's mode of a node that hands its input on instead of running; the API form leaves it out."""


@dataclass(frozen=True)
class Wire:
    """An output of a node, to be given as another node's input."""

    node: Node
    slot: int


@dataclass(frozen=True)
class Open:
    """An input that a blueprint offers on its own node, under a name."""

    name: str


@dataclass(eq=False)
class Node:
    """One node of a graph.

    Args:
        number: its id in the page and in the API.
        kind: the host's class name.
        info: the host's ``/object_info`` entry.
        inputs: widget values, wires and open inputs by name; what is not named keeps the host's default.
        room: least width and height in the page, for what the node shows once it has run.
        grown: width and height that it will have grown to by then, where it grows by itself.
    """

    number: int
    kind: str
    info: dict
    title: str
    inputs: dict[str, Any]
    room: tuple[int, int] = (0, 0)
    grown: tuple[int, int] = (0, 0)
    bypass: bool = False
    position: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        unknown = self.inputs.keys() - self.specs.keys()
        if unknown:
            raise ValueError(f"{self.kind} has no input {sorted(unknown)}; it has {list(self.specs)}.")

    def __getitem__(self, output: str) -> Wire:
        return Wire(self, self.info["output_name"].index(output))

    @property
    def specs(self) -> dict[str, list]:
        """``[type, options]`` of every input, in the host's order."""
        given = self.info["input"]
        return {**given.get("required", {}), **given.get("optional", {})}

    @property
    def widgets(self) -> list[str]:
        return [name for name, spec in self.specs.items() if is_widget(spec)]

    @property
    def sockets(self) -> list[str]:
        return [name for name, spec in self.specs.items() if not is_widget(spec)]

    @property
    def slots(self) -> list[str]:
        """Every input in the page's order: those that are only sockets, then the widgets."""
        return self.sockets + self.widgets

    def value(self, name: str) -> Any:
        """What a widget is set to; where a wire holds it, what the page shows meanwhile."""
        given = self.inputs.get(name)
        return default_of(self.specs[name]) if name not in self.inputs or is_wired(given) else given

    @property
    def needed(self) -> int:
        """Height of its sockets and widgets."""
        rows = max(len(self.sockets), len(self.info["output"]))
        # a note's only widget is its text
        return 0 if self.kind == "MarkdownNote" else rows * SLOT + len(self.widget_values()) * WIDGET + 16

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.room
        return max(WIDTH, width), max(self.needed, height)

    @property
    def space(self) -> tuple[int, int]:
        """What is kept free for it in the page, whichever way the page draws it."""
        width, height = self.size
        return max(width, self.grown[0]), max(height, self.grown[1], self.needed + FOOTER)

    def widget_values(self) -> list[Any]:
        """The page's ``widgets_values``: with what it adds behind a seed and behind a picture's name."""
        values = []
        for name in self.widgets:
            values.append(self.value(name))
            options = self.specs[name][1] if len(self.specs[name]) > 1 else {}
            if options.get("control_after_generate"):
                values.append("fixed")
            if any(options.get(f"{kind}_upload") for kind in ("image", "video")):
                values.append("image")
        return values


@dataclass
class Group:
    """A titled frame around stacks of nodes that stand side by side."""

    title: str
    stacks: Sequence[Sequence[Node]]
    color: str = COLOR
    box: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def width(self) -> int:
        return sum(wide_of(stack) + GAP for stack in self.stacks) - GAP + 2 * PADDING

    @property
    def height(self) -> int:
        return GROUP_TITLE + max(sum(node.space[1] + TITLE + GAP for node in stack) for stack in self.stacks)

    def place(self, x: int, y: int, width: int, height: int) -> None:
        self.box = (x, y, width, height)
        left = x + PADDING
        for stack in self.stacks:
            top = y + GROUP_TITLE + TITLE
            for node in stack:
                node.position = (left, top)
                top += node.space[1] + TITLE + GAP
            left += wide_of(stack) + GAP


@dataclass
class Graph:
    """A graph under construction.

    Args:
        name: of its files.
        object_info: the host's answer to ``/object_info``.
        room, grown: sizes in the page of nodes by their class, as in :class:`Node`.
        packs: the registry's id of a pack by the host's name for it, beside the host's own nodes.
        newer: widget values by node class and name that only newer hosts have. Older ones pass them over in
            the API form; the page's form counts a node's values by their place, so it leaves them out.
        controls, results: what the page's app mode shows in place of the graph: widgets, each by its node and
            name, with what it is called there, and the nodes whose output the graph is made for.
    """

    name: str
    object_info: dict[str, dict]
    room: dict[str, tuple[int, int]] = field(default_factory=dict)
    grown: dict[str, tuple[int, int]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    packs: dict[str, str] = field(default_factory=dict)
    newer: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls: dict[tuple[Node, str], str] = field(default_factory=dict)
    results: list[Node] = field(default_factory=list)

    def node(self, kind: str, title: str = "", *, bypass: bool = False, **inputs: Any) -> Node:
        """Add a node; inputs are widget values or wires (``other["its output"]``)."""
        if kind not in self.object_info:
            raise ValueError(f"The host has no node {kind}.")
        info = self.object_info[kind]
        title = title or info["display_name"] or kind
        room, grown = (sizes.get(kind, (0, 0)) for sizes in (self.room, self.grown))
        self.nodes.append(Node(len(self.nodes) + 1, kind, info, title, inputs, room, grown, bypass))
        return self.nodes[-1]

    def note(self, title: str, *texts: str) -> Node:
        """Add a note in Markdown, which only the page knows; it is as high as its text needs."""
        text = "\n\n".join(map(unwrapped, texts))
        spec = {"text": ["STRING", {"multiline": True}]}
        info = {"input": {"required": spec}, "output": [], "output_name": []}
        rows = sum(math.ceil(len(line) / NOTE_COLUMNS) for line in text.splitlines() if line)
        height = rows * NOTE_ROW + (text.count("\n\n") + 3) * NOTE_ROW
        number = len(self.nodes) + 1
        self.nodes.append(Node(number, "MarkdownNote", info, title, {"text": text}, (0, height)))
        return self.nodes[-1]

    def lay_out(self, *columns: Sequence[Group]) -> None:
        """Put groups into columns from left to right, each column from top to bottom, all equally long."""
        bottom = max(sum(group.height + GAP for group in column) for column in columns)
        x = 0
        for column in columns:
            width, y = max(group.width for group in column), 0
            for index, group in enumerate(column):
                last = index == len(column) - 1
                group.place(x, y, width, bottom - y - GAP if last else group.height)
                y += group.height + GAP
            x += width + GAP
            self.groups += column

    def links(self) -> list[tuple[int, Wire, Node, int]]:
        """``(number, from, to, to slot)`` of every wire."""
        wires = [
            (node.inputs[name], node, slot)
            for node in self.nodes
            for slot, name in enumerate(node.slots)
            if isinstance(node.inputs.get(name), Wire)
        ]
        return [(number, *wire) for number, wire in enumerate(wires, 1)]

    # What is posted

    def api(self) -> dict[str, dict]:
        """The API form: every widget written out, bypassed nodes stepped over."""
        return {
            str(node.number): {
                "class_type": node.kind,
                "inputs": dict(self._posted(node)),
                "_meta": {"title": node.title},
            }
            for node in self.nodes
            if node.kind != "MarkdownNote" and not node.bypass
        }

    def _posted(self, node: Node) -> Iterator[tuple[str, Any]]:
        for name in node.specs:
            given = node.inputs.get(name)
            if isinstance(given, Wire):
                source = around_bypassed(given)
                yield name, [str(source.node.number), source.slot]
            elif is_widget(node.specs[name]):
                yield name, node.value(name)
        yield from self.newer.get(node.kind, {}).items()

    # What the page opens

    def ui(self) -> dict[str, Any]:
        """The page's form."""
        links = self.links()
        return {
            "id": self._identity("workflow"),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": [self._ui_node(node, links) for node in self.nodes],
            "links": [
                [number, wire.node.number, wire.slot, node.number, slot, wire.node.info["output"][wire.slot]]
                for number, wire, node, slot in links
            ],
            "groups": self._ui_groups(),
            "config": {},
            "extra": {
                "ds": {"scale": 0.7, "offset": [60, 80]},
                "linearData": {
                    "inputs": [[node.number, name] for node, name in self.controls],
                    "outputs": [node.number for node in self.results],
                },
            },
            "version": 0.4,
        }

    # What the page offers as one node

    def blueprint(self, title: str, description: str, outputs: dict[str, Wire]) -> dict[str, Any]:
        """A subgraph blueprint: this graph inside of one node.

        Args:
            title: of the node; the page takes the file's name for it.
            outputs: what comes out of the node, by name. What goes in are the graph's open inputs.
        """
        links = self.links()
        opened = [
            (value.name, node, slot)
            for node in self.nodes
            for slot, name in enumerate(node.slots)
            if isinstance(value := node.inputs.get(name), Open)
        ]
        names = list(dict.fromkeys(name for name, _, _ in opened))
        first_in, first_out = len(links) + 1, len(links) + 1 + len(opened)
        arriving = {(node.number, slot): first_in + index for index, (_, node, slot) in enumerate(opened)}
        leaving = {(wire.node.number, wire.slot): first_out + i for i, wire in enumerate(outputs.values())}
        inside = []
        for node in self.nodes:
            entry = self._ui_node(node, links)
            for slot, socket in enumerate(entry["inputs"]):
                socket["link"] = arriving.get((node.number, slot), socket["link"])
            for slot, socket in enumerate(entry["outputs"]):
                if number := leaving.get((node.number, slot)):
                    socket["links"] = [*(socket["links"] or []), number]
            inside.append(entry)
        wires = [
            (number, wire.node.number, wire.slot, node.number, slot, wire.node.info["output"][wire.slot])
            for number, wire, node, slot in links
        ]
        wires += [
            (first_in + i, BLUEPRINT_IN, names.index(name), node.number, slot, type_of(node, slot))
            for i, (name, node, slot) in enumerate(opened)
        ]
        wires += [
            (
                first_out + i,
                wire.node.number,
                wire.slot,
                BLUEPRINT_OUT,
                i,
                wire.node.info["output"][wire.slot],
            )
            for i, wire in enumerate(outputs.values())
        ]
        identity = self._identity(f"blueprint/{title}")
        right = max(group.box[0] + group.box[2] for group in self.groups)
        sockets_in = [
            {
                "id": self._identity(f"in/{name}"),
                "name": name,
                "type": next(type_of(node, slot) for other, node, slot in opened if other == name),
                "linkIds": [first_in + i for i, (other, _, _) in enumerate(opened) if other == name],
            }
            for name in names
        ]
        sockets_out = [
            {
                "id": self._identity(f"out/{name}"),
                "name": name,
                "type": wire.node.info["output"][wire.slot],
                "linkIds": [first_out + i],
            }
            for i, (name, wire) in enumerate(outputs.items())
        ]
        widgets = {
            name: (node, node.slots[slot])
            for name, node, slot in reversed(opened)
            if node.slots[slot] in node.widgets
        }
        outside = {
            "id": 1,
            "type": identity,
            "pos": [0, 0],
            "size": [WIDTH, max(len(names) - len(widgets), len(outputs)) * SLOT + len(widgets) * WIDGET + 16],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [
                {"name": socket["name"], "type": socket["type"], "link": None}
                | ({"widget": {"name": socket["name"]}} if socket["name"] in widgets else {})
                for socket in sockets_in
            ],
            "outputs": [
                {"name": socket["name"], "type": socket["type"], "links": None} for socket in sockets_out
            ],
            "title": title,
            "properties": {},
            "widgets_values": [
                node.value(widget) for node, widget in (widgets[name] for name in names if name in widgets)
            ],
        }
        subgraph = {
            "id": identity,
            "version": 1,
            "state": {
                "lastGroupId": len(self.groups),
                "lastNodeId": len(self.nodes),
                "lastLinkId": first_out + len(outputs) - 1,
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": title,
            "inputNode": {"id": BLUEPRINT_IN, "bounding": [-220, 100, 150, len(names) * SLOT + 40]},
            "outputNode": {"id": BLUEPRINT_OUT, "bounding": [right + 70, 100, 150, len(outputs) * SLOT + 40]},
            "inputs": sockets_in,
            "outputs": sockets_out,
            "widgets": [],
            "nodes": inside,
            "groups": self._ui_groups(),
            "links": [
                dict(
                    zip(
                        ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"),
                        wire,
                        strict=True,
                    )
                )
                for wire in wires
            ],
            "extra": {},
        }
        return {
            "id": self._identity(f"file/{title}"),
            "revision": 0,
            "last_node_id": 1,
            "last_link_id": 0,
            "nodes": [outside],
            "links": [],
            "groups": [],
            "definitions": {"subgraphs": [subgraph]},
            "config": {},
            "extra": {"BlueprintDescription": description},
            "version": 0.4,
        }

    def _identity(self, name: str) -> str:
        """A UUID that is the same in every run."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"fd2talk/{self.name}/{name}"))

    def _ui_groups(self) -> list[dict[str, Any]]:
        return [
            {
                "id": number,
                "title": group.title,
                "bounding": list(group.box),
                "color": group.color,
                "font_size": 24,
                "flags": {},
            }
            for number, group in enumerate(self.groups, 1)
        ]

    def _ui_node(self, node: Node, links: list) -> dict[str, Any]:
        arriving = {(to.number, slot): number for number, _, to, slot in links}
        leaving: dict[int, list[int]] = {}
        for number, wire, _, _ in links:
            if wire.node is node:
                leaving.setdefault(wire.slot, []).append(number)
        optional = node.info["input"].get("optional", {})
        inputs = []
        for slot, name in enumerate(node.slots):
            entry = {"name": name, "type": type_of(node, slot)}
            entry |= {"shape": 7} if name in optional else {}
            entry |= {"widget": {"name": name}} if name in node.widgets else {}
            entry |= {"label": self.controls[node, name]} if (node, name) in self.controls else {}
            inputs.append(entry | {"link": arriving.get((node.number, slot))})
        note = node.kind == "MarkdownNote"
        return {
            "id": node.number,
            "type": node.kind,
            "pos": list(node.position),
            "size": list(node.size),
            "flags": {},
            "order": self._order().index(node),
            "mode": BYPASS if node.bypass else 0,
            "inputs": [] if note else inputs,
            "outputs": [
                {"name": name, "type": kind, "links": leaving.get(slot)}
                for slot, (name, kind) in enumerate(
                    zip(node.info["output_name"], node.info["output"], strict=True)
                )
            ],
            # without a title the page shows the display name in its own language
            **({"title": node.title} if node.title != node.info.get("display_name") else {}),
            "properties": {} if note else {"Node name for S&R": node.kind, "cnr_id": self._pack(node)},
            "widgets_values": node.widget_values(),
            **({"color": "#432", "bgcolor": "#653"} if note else {}),
        }

    def _pack(self, node: Node) -> str:
        """In which pack of the registry a page finds a node that its host lacks."""
        module = node.info["python_module"].split(".")
        return self.packs[module[1]] if module[0] == "custom_nodes" else "comfy-core"

    def _order(self) -> list[Node]:
        """Nodes behind all that they depend on."""
        ordered: list[Node] = []

        def add(node: Node) -> None:
            if node not in ordered:
                for value in node.inputs.values():
                    if isinstance(value, Wire):
                        add(value.node)
                ordered.append(node)

        for node in self.nodes:
            add(node)
        return ordered


def wide_of(stack: Sequence[Node]) -> int:
    return max(node.space[0] for node in stack)


def is_widget(spec: list) -> bool:
    """Whether an input is set in the node itself; otherwise it is only a socket."""
    return (isinstance(spec[0], list) or spec[0] in WIDGETS) and not (
        len(spec) > 1 and spec[1].get("forceInput")
    )


def type_of(node: Node, slot: int) -> str:
    """The type of an input by its place in the page."""
    kind = node.specs[node.slots[slot]][0]
    return "COMBO" if isinstance(kind, list) else kind


def is_wired(value: Any) -> bool:
    return isinstance(value, Wire | Open)


def default_of(spec: list) -> Any:
    """What the page sets a new widget to."""
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    choices = kind if isinstance(kind, list) else options.get("options", [])
    if "default" in options:
        return options["default"]
    if choices:
        return choices[0]
    return {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False}.get(kind, "")


def around_bypassed(wire: Wire) -> Wire:
    """Where a wire comes from in truth: a bypassed node hands on its first input of the output's type."""
    while wire.node.bypass:
        kind = wire.node.info["output"][wire.slot]
        wire = next(wire.node.inputs[name] for name in wire.node.sockets if wire.node.specs[name][0] == kind)
    return wire


def unwrapped(text: str) -> str:
    """Markdown whose paragraphs are one line each, since the page keeps line ends; lists and code stay.

    A command goes on in the next line behind a backslash, as in a shell.
    """
    return re.sub(r"(?<=[^\n`\\])\n(?=[^\n`\d-])", " ", text.strip())
