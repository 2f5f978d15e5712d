"""The page that a reviewer decides from: facts of a day, and how they are shown."""

from tasks.report.changes import made_with
from tasks.report.collect import collect_facts
from tasks.report.facts import Facts
from tasks.report.page import render_report

__all__ = ["Facts", "collect_facts", "made_with", "render_report"]
