"""The page at ``/``: plain files that the browser gets as they are (``serve.pages``)."""
