"""A report as one HTML page: figures, drawings and pictures in one file, with no script and nothing from a network."""
