"""One ``Result`` as files and lines: JSON, HTML, Markdown and the terminal. Computes nothing.

Each form is a module of its own (``json``, ``html``, ``markdown``, ``console``), imported by those
who need it, so that a terminal table doesn't load the template engine.
"""
