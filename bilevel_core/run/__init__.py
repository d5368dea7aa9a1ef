"""A run: its context, its options, its executor, and its record on disk."""

from bilevel_core.run.context import Callback, Event, RunContext

__all__ = ["Callback", "Event", "RunContext"]
