"""The tables of the documents, as Markdown from rows of results; `bench.report` writes them."""
