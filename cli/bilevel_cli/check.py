"""`bilevel plugins check`: installed plugins against the conformance kit."""

from __future__ import annotations

from collections.abc import Sequence

from bilevel_cli.exits import Exit
from bilevel_cli.output import echo, echo_json, echo_warnings
from bilevel_core.errors import unknown
from bilevel_core.plugins.registry import get_registry


def check_plugins(names: Sequence[str], *, as_json: bool) -> Exit:
    """Run the checks of some plugins, or of all that are not switched off. 0 when all pass, else 6.

    Raises:
        UsageError: there is no plugin of that name.
    """
    from bilevel_core.testing.plugin_checks import run_all

    infos = get_registry().infos
    for name in names:
        if name not in infos:
            raise unknown("plugin", name, infos)
    chosen = list(names) or [n for n, info in infos.items() if info.status != "disabled"]
    rows = [{"plugin": name, **row} for name in chosen for row in run_all(name)]
    failed = [row for row in rows if row["outcome"] == "failed"]
    if as_json:
        echo_json(rows)
    else:
        from bilevel_core.report import table

        short = [{k: row[k] for k in ("plugin", "check", "since", "outcome")} for row in rows]
        echo("\n".join(table(short, indent="", limit=len(short))))
        notes = [f"{row['plugin']}, {row['check']}: {row['message']}" for row in rows if row["message"]]
        echo("\n".join(["", *notes] if notes else []) + ("\n" if notes else ""))
        echo("all checks passed" if not failed else f"{len(failed)} of {len(rows)} checks FAILED")
    echo_warnings()
    return Exit.MISSING if failed else Exit.OK
