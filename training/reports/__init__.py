"""HTML pages about runs: reads a run's folder, draws its curves as SVG, writes the page."""
