"""The commands of the program: its own, and those of plugins, whose code is imported only when they are called."""

from __future__ import annotations

import difflib
from typing import Any

import typer
from typer.core import TyperGroup


class PluginGroup(TyperGroup):
    """The commands here, and those of plugins, whose code is imported only when they are called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        return [*super().list_commands(ctx), *(n for n in sorted(_plugin_commands()) if n not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One command; for a plugin's, a stand-in with its summary."""
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in _plugin_commands():
            return TyperGroup(name=cmd_name, help=_plugin_commands()[cmd_name].summary)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is about to be called: here a plugin's code is imported."""
        name = args[0] if args else ""
        if name not in self.commands and name in _plugin_commands():
            loaded = typer.main.get_command(_plugin_commands()[name].load())
            return name, loaded, args[1:]
        if name and not name.startswith("-") and name not in self.commands:
            close = difflib.get_close_matches(name, self.list_commands(ctx), n=2)
            hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
            ctx.fail(f"There is no command {name!r}.{hint}")
        return super().resolve_command(ctx, args)


def _plugin_commands() -> dict[str, Any]:
    from bilevel_core.plugins.registry import get_registry

    return dict(get_registry().commands)
