"""Pictures of a recorded run, and the page that shows them. Needs matplotlib (``pip install 'bilevel[plot]'``)."""
